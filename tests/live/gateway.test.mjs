// What a gateway hears of a subscription that is refused or ended, by each protocol: the code and the message that its client
// is to get. Routers make an error of their own of what they are not told in the stream. The gateway proves itself by
// Router-Authorization. Not here: real gateways (tests/gateway).
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";

import WebSocket from "ws";

import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";
const SECRET = "the secret of the gateway in this test";

let xp;
let router;
before(async () => {
  router = await startRouter();
  xp = await start({ XP_GATEWAY_SECRETS: SECRET, XP_GATEWAY_CALLBACK_ORIGINS: router.origin });
});
after(async () => {
  assert.equal(await xp.stop(), 0);
  router.close();
});

/** A router that is called back, and keeps what it is told by the id of the subscription. */
async function startRouter() {
  const told = new Map();
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const message = JSON.parse(body);
    told.set(message.id, [...(told.get(message.id) ?? []), message]);
    response.writeHead(204, { "subscription-protocol": "callback/1.0" }).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { told, origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

const headers = (token) => ({
  "content-type": "application/json",
  "router-authorization": SECRET,
  ...(token && { authorization: `Bearer ${token}` }),
});

function post(token, accept, extensions) {
  const body = JSON.stringify({ query: MOVED, extensions });
  return fetch(xp.url, { method: "POST", headers: { ...headers(token), accept }, body });
}

let made = 0;

/** By each protocol: subscribes, waits until it is over, and says with which errors. `begun` is called where it begins. */
const protocols = {
  async sse(token, begun) {
    const response = await post(token, "text/event-stream");
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type"), /^text\/event-stream/);
    await begun?.("sse");
    const text = await response.text();
    assert.match(text, /event: complete\ndata: \n\n$/);
    return JSON.parse(text.match(/^event: next\ndata: (.*)$/m)[1]).errors;
  },

  async multipart(token, begun) {
    const response = await post(token, 'multipart/mixed;subscriptionSpec="1.0", application/json');
    assert.equal(response.status, 200);
    assert.match(response.headers.get("content-type"), /^multipart\/mixed/);
    await begun?.("multipart");
    const text = await response.text();
    assert.ok(text.endsWith("--graphql--\r\n"), text);
    const parts = text.split("--graphql").map((part) => part.split("\r\n\r\n")[1]).filter(Boolean);
    const { payload, errors } = JSON.parse(parts.at(-1));
    return errors ?? payload.errors;
  },

  async callback(token, begun) {
    const subscriptionId = `gateway-${made++}`;
    const subscription = { callbackUrl: `${router.origin}/callback/${subscriptionId}`, subscriptionId, verifier: "v", heartbeatIntervalMs: 0 };
    const response = await post(token, "application/json;callbackSpec=1.0", { subscription });
    assert.deepEqual([response.status, await response.json()], [200, { data: null }]);
    await begun?.("callback");
    for (let tries = 0; tries < 500; tries++) {
      const last = router.told.get(subscriptionId)?.at(-1);
      if (last?.action === "complete") {
        assert.deepEqual(router.told.get(subscriptionId).map(({ action }) => action), ["check", "complete"]);
        return last.errors;
      }
      await pause(25);
    }
    assert.fail("it was never told that it is over");
  },

  /** The gateway proves itself in `connection_init`, where Hive Router puts its headers. */
  async websocket(token, begun) {
    const socket = new WebSocket(xp.socketUrl, ["graphql-transport-ws"]);
    const closed = once(socket, "close");
    await once(socket, "open");
    const messages = [];
    const errors = new Promise((done) => {
      socket.on("message", (data) => {
        const message = JSON.parse(data);
        messages.push(message);
        if (message.type === "connection_ack") {
          for (const id of ["1", "2"]) socket.send(JSON.stringify({ type: "subscribe", id, payload: { query: MOVED } }));
        }
        const refused = messages.filter(({ type }) => type === "error");
        if (refused.length === 2) done(refused);
      });
    });
    socket.send(JSON.stringify({ type: "connection_init", payload: headers(token) }));
    await begun?.("websocket", 2);
    const refused = await errors;
    assert.deepEqual(refused.map(({ id }) => id).sort(), ["1", "2"], "each operation is told");
    assert.deepEqual(refused[0].payload, refused[1].payload);
    socket.close();
    await closed;
    return refused[0].payload;
  },
};

for (const [protocol, outcome] of Object.entries(protocols)) {
  describe(`by ${protocol}`, () => {
    test("who is not signed in is told so", async () => {
      const [{ message, extensions }] = await outcome();
      assert.deepEqual([message, extensions.code], ["Sign in first", "UNAUTHENTICATED"]);
    });

    test("whose token is not valid is told so", async () => {
      const [{ message, extensions }] = await outcome("nonsense");
      assert.deepEqual([message, extensions.code], ["The access token is not valid.", "UNAUTHENTICATED"]);
    });

    test("whose session ends is told so", async () => {
      const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
      const [{ message, extensions }] = await outcome(token, async (name, count = 1) => {
        await xp.expectSubscriptions(name, count);
        await xp.endSession(other.token, session);
      });
      assert.deepEqual([message, extensions.code], ["The session has ended.", "UNAUTHENTICATED"]);
      await xp.expectSubscriptions(protocol, 0);
    });

    test("whose token runs out is told so", async () => {
      const token = await xp.mint("collector@example.com", 2);
      const [{ message, extensions }] = await outcome(token);
      assert.deepEqual([message, extensions.code], ["The access token has expired.", "UNAUTHENTICATED"]);
    });
  });
}

test("a wrong secret in connection_init is refused, and one is as good there as in the handshake", async () => {
  const own = await start({ XP_GATEWAY_SECRETS: SECRET, XP_DOCUMENTS_MODE: "require_id" });
  const closed = async (payload) => {
    const socket = new WebSocket(own.socketUrl, ["graphql-transport-ws"]);
    const [, [code]] = await Promise.all([
      once(socket, "open").then(() => socket.send(JSON.stringify({ type: "connection_init", payload }))),
      once(socket, "close"),
    ]);
    return code;
  };
  assert.equal(await closed({ "router-authorization": "wrong" }), 4401);
  // A client that is none of a gateway's: it connects again with another token.
  assert.equal(await closed({ authorization: "Bearer nonsense" }), 4403);
  const socket = new WebSocket(own.socketUrl, ["graphql-transport-ws"]);
  await once(socket, "open");
  const said = [];
  socket.on("message", (data) => said.push(JSON.parse(data)));
  socket.send(JSON.stringify({ type: "connection_init", payload: { headers: { "Router-Authorization": SECRET } } }));
  // A document that nobody has published: only gateways may send it (documents.mode = require_id).
  socket.send(JSON.stringify({ type: "subscribe", id: "1", payload: { query: "{ __typename }" } }));
  for (let tries = 0; tries < 100 && said.length < 3; tries++) await pause(20);
  assert.deepEqual(said.map(({ type }) => type), ["connection_ack", "next", "complete"]);
  assert.deepEqual(said[1].payload, { data: { __typename: "Query" } });
  socket.close();
  assert.equal(await own.stop(), 0);
});

test("a gateway's socket that is renewed with a bad token tells each operation before it is closed", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const socket = new WebSocket(xp.socketUrl, ["graphql-transport-ws"], { headers: { "router-authorization": SECRET } });
  const closed = once(socket, "close");
  await once(socket, "open");
  const said = [];
  socket.on("message", (data) => said.push(JSON.parse(data)));
  const say = (message) => socket.send(JSON.stringify(message));
  // The handshake has proved the gateway: what stands here is not looked at.
  say({ type: "connection_init", payload: { authorization: `Bearer ${token}`, "router-authorization": "wrong" } });
  say({ type: "subscribe", id: "1", payload: { query: MOVED } });
  await xp.expectSubscriptions("websocket", 1);
  say({ type: "ping", payload: { authorization: "Bearer nonsense" } });
  const [code] = await closed;
  assert.equal(code, 4403);
  const last = said.at(-1);
  assert.deepEqual([last.type, last.id, last.payload[0].extensions.code], ["error", "1", "UNAUTHENTICATED"]);
});

test("a client's own socket is closed without a word to its operations, which it begins anew", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const socket = new WebSocket(xp.socketUrl, ["graphql-transport-ws"]);
  const closed = once(socket, "close");
  await once(socket, "open");
  const said = [];
  socket.on("message", (data) => said.push(JSON.parse(data).type));
  socket.send(JSON.stringify({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  socket.send(JSON.stringify({ type: "subscribe", id: "1", payload: { query: MOVED } }));
  await xp.expectSubscriptions("websocket", 1);
  await xp.endSession(other.token, session);
  assert.equal((await closed)[0], 4401);
  assert.deepEqual(said, ["connection_ack"]);
});
