// Live queries as the clients of graphql-ws and graphql-sse, and a reader of multipart, hear them: the answer, and again when it
// has changed. Not here: which writes change an answer (the Rust tests).
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { multipartEvents } from "./streams.mjs";
import { start } from "./xp.mjs";

const HERE = "query @live(throttle: 50) { me { lastLocation { latitude } } }";

let xp;
before(async () => (xp = await start()));
after(async () => assert.equal(await xp.stop(), 0));

const headers = (token) => ({ authorization: `Bearer ${token}` });

const CLIENTS = {
  websocket: (token) => {
    const client = createWsClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams: headers(token), retryAttempts: 0 });
    return [client.iterate({ query: HERE }), () => client.dispose()];
  },
  sse: (token) => {
    const client = createSseClient({ url: xp.url, headers: headers(token), retryAttempts: 0 });
    return [client.iterate({ query: HERE }), () => client.dispose()];
  },
  multipart: (token) => {
    const control = new AbortController();
    async function* answers() {
      const asked = { "content-type": "application/json", accept: 'multipart/mixed;subscriptionSpec="1.0"', ...headers(token) };
      const response = await fetch(xp.url, { method: "POST", headers: asked, body: JSON.stringify({ query: HERE }), signal: control.signal });
      for await (const { payload } of multipartEvents(response)) if (payload) yield payload;
    }
    return [answers(), () => control.abort()];
  },
};

for (const [transport, listen] of Object.entries(CLIENTS)) {
  test(`a live query is answered at once, and again when it has changed (${transport})`, async () => {
    const { token } = await xp.signIn("COLLECTOR");
    await xp.goTo(token, 10.5);
    const [answers, close] = listen(token);
    const next = async () => (await answers.next()).value.data.me.lastLocation.latitude;
    assert.equal(await next(), 10.5);
    for (const latitude of [11.5, 12.5, 13.5]) {
      await xp.goTo(token, latitude);
      assert.equal(await next(), latitude);
    }
    close();
    await xp.expectSubscriptions(transport, 0);
  });
}

test("a query that is not asked for on a stream is answered once", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  assert.equal(typeof (await xp.ask(token, HERE)).me.lastLocation.latitude, "number");
});
