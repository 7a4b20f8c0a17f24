// Apollo's HTTP callback protocol (callback/1.0), against a router made for the test: it keeps what it is told.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { after, before, test } from "node:test";

import { openForm, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";

class Router {
  static async start(port = 0) {
    const router = new Router();
    router.said = [];
    router.answer = () => 204;
    router.server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      const message = { ...JSON.parse(body), path: request.url, headers: request.headers };
      const status = await router.answer(message);
      router.said.push(message);
      const headers = router.headers ?? { "subscription-protocol": "callback/1.0" };
      response.writeHead(status, { ...headers, ...(status === 307 && { location: router.elsewhere }) }).end();
    });
    router.server.listen(port, "127.0.0.1");
    await once(router.server, "listening");
    router.origin = `http://127.0.0.1:${router.server.address().port}`;
    return router;
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
  }

  of(id) {
    return this.said.filter((message) => message.id === id);
  }

  async expect(id, action, count = 1) {
    for (let tries = 0; tries < 200; tries++) {
      const found = this.of(id).filter((message) => message.action === action);
      if (found.length >= count) return found[count - 1];
      await pause(25);
    }
    assert.fail(`no ${action} number ${count} for ${id}: ${JSON.stringify(this.of(id))}`);
  }
}

let router, xp;
before(async () => {
  router = await Router.start();
  xp = await start({ XP_GATEWAY_CALLBACK_ORIGINS: router.origin });
});
after(async () => {
  assert.equal(await xp.stop(), 0);
  await router.stop();
});

const ask = (token, subscription, { query = MOVED, headers = {}, url = xp.url, extensions = {} } = {}) =>
  fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json;callbackSpec=1.0",
      ...(token && { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: JSON.stringify({ query, extensions: { ...extensions, subscription } }),
  });

let made = 0;
function wanted(more = {}) {
  const subscriptionId = `subscription-${++made}`;
  const callbackUrl = `${router.origin}/callback/${subscriptionId}`;
  return { callbackUrl, subscriptionId, verifier: `verifier-${made}`, heartbeatIntervalMs: 0, ...more };
}

/** A subscription that has begun. */
async function subscribed(token, more) {
  const subscription = wanted(more);
  const response = await ask(token, subscription);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("subscription-protocol"), "callback/1.0");
  assert.deepEqual(await response.json(), { data: null });
  return subscription;
}

test("the address confirms, gets each event, and is told of the end", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const { subscriptionId, verifier } = await subscribed(token);
  const [check] = router.of(subscriptionId);
  assert.equal(check.headers["subscription-protocol"], "callback/1.0");
  assert.equal(check.headers["content-type"], "application/json");
  assert.equal(check.path, `/callback/${subscriptionId}`);
  const { path, headers, ...said } = check;
  assert.deepEqual(said, { kind: "subscription", action: "check", id: subscriptionId, verifier });
  for (const [index, latitude] of [51.5, 52.5].entries()) {
    await xp.goTo(token, latitude);
    const next = await router.expect(subscriptionId, "next", index + 1);
    assert.deepEqual(next.payload.data, { locationUpdated: { latitude } });
    assert.equal(typeof next.payload.extensions.resumeToken, "string");
    assert.equal(next.verifier, verifier);
  }
  await xp.endSession(other.token, session);
  const begun = Date.now();
  const complete = await router.expect(subscriptionId, "complete");
  assert.ok(Date.now() - begun < 1000, "within a second");
  assert.equal(complete.errors[0].extensions.code, "UNAUTHENTICATED");
  await xp.expectSubscriptions("callback", 0);
});

test("who comes back with a token is called with what was missed, in order, and each once", async () => {
  const [{ token }, owner, collector] = [await xp.signIn("EDITOR"), await xp.mint("editor@example.com", 600), await xp.mint("collector@example.com", 600)];
  const form = await openForm(xp, owner);
  const query = `subscription { submissionChanged(formId: "${form}") { data } }`;
  const asked = async (resumeAfter) => {
    const subscription = wanted();
    const response = await ask(token, subscription, { query, extensions: resumeAfter ? { resumeAfter } : {} });
    assert.deepEqual(await response.json(), { data: null });
    return subscription.subscriptionId;
  };
  const numbers = (id) => router.of(id).filter(({ action }) => action === "next").map(({ payload }) => payload.data.submissionChanged.data.number);
  const first = await asked();
  await submit(xp, collector, form, 1);
  const { payload } = await router.expect(first, "next");
  router.answer = ({ id }) => (id === first ? 404 : 204);
  await submit(xp, collector, form, 2);
  await submit(xp, collector, form, 3);
  await xp.expectSubscriptions("callback", 0);
  router.answer = () => 204;
  const second = await asked(payload.extensions.resumeToken);
  await submit(xp, collector, form, 4);
  await router.expect(second, "next", 3);
  assert.deepEqual(numbers(second), [2, 3, 4]);
  const refused = wanted();
  const response = await ask(token, refused, { query, extensions: { resumeAfter: "0-1-1-0" } });
  assert.equal(response.status, 200);
  const complete = await router.expect(refused.subscriptionId, "complete");
  assert.equal(complete.errors[0].extensions.code, "RESUME_EXPIRED");
  router.answer = ({ id }) => (id === second ? 404 : 204);
  await submit(xp, collector, form, 5);
  await xp.expectSubscriptions("callback", 0);
  router.answer = () => 204;
});

test("it is asked as often as it wished whether it still knows the subscription, and 404 ends it", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const { subscriptionId } = await subscribed(token, { heartbeatIntervalMs: 200 });
  await router.expect(subscriptionId, "check", 4);
  router.answer = ({ id }) => (id === subscriptionId ? 404 : 204);
  await xp.expectSubscriptions("callback", 0);
  const count = router.of(subscriptionId).length;
  await xp.goTo(token, 53.5);
  await pause(600);
  assert.equal(router.of(subscriptionId).length, count, "nothing is sent after that");
  router.answer = () => 204;
});

test("a short failure loses no event; a router that is gone ends its subscriptions", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const { subscriptionId } = await subscribed(token, { heartbeatIntervalMs: 300 });
  let failures = 2;
  router.answer = ({ action }) => (action === "next" && failures-- > 0 ? 503 : 204);
  await xp.goTo(token, 54.5);
  const third = await router.expect(subscriptionId, "next", 3);
  assert.equal(third.payload.data.locationUpdated.latitude, 54.5);
  router.answer = () => 204;
  const port = Number(new URL(router.origin).port);
  await router.stop();
  await xp.expectSubscriptions("callback", 0);
  router = await Router.start(port);
});

test("a router that is frozen holds up nobody, not even the end of a session", async () => {
  const [slow, { token }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const frozen = await subscribed(slow.token);
  const lively = await subscribed(token);
  let thaw;
  const thawed = new Promise((resolve) => (thaw = resolve));
  router.answer = ({ id, action }) => (id === frozen.subscriptionId && action === "next" ? thawed.then(() => 204) : 204);
  await xp.goTo(token, 55.5);
  const next = await router.expect(lively.subscriptionId, "next");
  assert.equal(next.payload.data.locationUpdated.latitude, 55.5);
  await xp.endSession(other.token, slow.session);
  assert.equal((await router.expect(frozen.subscriptionId, "complete")).errors[0].extensions.code, "UNAUTHENTICATED");
  thaw();
  router.answer = ({ id }) => (id === lively.subscriptionId ? 404 : 204);
  await xp.goTo(token, 56.5);
  await xp.expectSubscriptions("callback", 0);
  router.answer = () => 204;
});

test("what does not confirm is not called back", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const refused = async (subscription) => {
    const response = await ask(token, subscription);
    const { errors } = await response.json();
    return [response.status, errors[0].extensions.code];
  };
  const other = await Router.start();
  for (const status of [200, 404, 500, 307]) {
    router.answer = () => status;
    router.elsewhere = `${other.origin}/callback`;
    assert.deepEqual(await refused(wanted()), [400, "BAD_USER_INPUT"], `${status}`);
  }
  router.answer = () => 204;
  router.headers = { "subscription-protocol": "another/2.0" };
  assert.deepEqual(await refused(wanted()), [400, "BAD_USER_INPUT"]);
  router.headers = {};
  await subscribed(token); // Hive Gateway answers without the header.
  router.headers = undefined;
  router.answer = () => 404;
  await xp.goTo(token, 57.5);
  await xp.expectSubscriptions("callback", 0);
  router.answer = () => 204;
  const asked = router.said.length;
  const port = new URL(router.origin).port;
  for (const callbackUrl of [
    `${other.origin}/callback`,
    `http://127.0.0.1:${port}@${new URL(other.origin).host}/`,
    `http://user@127.0.0.1:${port}/`,
    `http://localhost:${port}/`,
    `https://127.0.0.1:${port}/`,
    `http://127.0.0.1:${port}.example/`,
    `http://127.0.0.1/`,
    "file:///etc/passwd",
    "/callback",
    "nonsense\u0000",
  ]) {
    assert.deepEqual(await refused(wanted({ callbackUrl })), [403, "FORBIDDEN"], callbackUrl);
  }
  for (const subscription of [undefined, {}, wanted({ verifier: "" }), wanted({ subscriptionId: "x".repeat(2000) }), wanted({ verifier: 1 })]) {
    assert.deepEqual(await refused(subscription), [400, "BAD_USER_INPUT"], JSON.stringify(subscription));
  }
  assert.equal(router.said.length, asked, "nobody was asked");
  assert.deepEqual(other.said, [], "nor anybody else, also not by a redirection");
  await other.stop();
});

test("a subscription that is refused is confirmed first, and then completed with its error", async () => {
  const { subscriptionId } = await subscribed(undefined);
  const complete = await router.expect(subscriptionId, "complete");
  assert.equal(complete.errors[0].extensions.code, "UNAUTHENTICATED");
  assert.deepEqual(router.of(subscriptionId).map(({ action }) => action), ["check", "complete"]);
});

test("what cannot run is answered at once; queries are answered as ever", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const asked = router.said.length;
  const unknown = await ask(token, wanted(), { query: "subscription { nothing }" });
  assert.equal((await unknown.json()).errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
  assert.equal((await ask("nonsense", wanted())).status, 401);
  const query = await ask(token, wanted(), { query: "{ __typename }" });
  assert.deepEqual(await query.json(), { data: { __typename: "Query" } });
  assert.equal(router.said.length, asked);
});

test("what is sent carries the trace of who asked", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const subscription = wanted();
  await ask(token, subscription, { headers: { traceparent, tracestate: "vendor=1" } });
  await xp.goTo(token, 58.5);
  const next = await router.expect(subscription.subscriptionId, "next");
  assert.match(next.headers.traceparent, /^00-0af7651916cd43dd8448eb211c80319c-/);
  assert.equal(next.headers.tracestate, "vendor=1");
  router.answer = () => 404;
  await xp.goTo(token, 59.5);
  await xp.expectSubscriptions("callback", 0);
  router.answer = () => 204;
});

/** Status of a request on a connection of its own that ends with it; `undefined` where there is no answer in time. */
function alone(url, token, body, accept = "application/json") {
  const headers = { "content-type": "application/json", connection: "close", accept, ...(token && { authorization: `Bearer ${token}` }) };
  return new Promise((done) => {
    const sent = request(url, { method: "POST", agent: false, headers }, (response) => {
      response.resume().on("end", () => done(response.statusCode));
    });
    sent.setTimeout(2000, () => sent.destroy());
    sent.on("error", () => done(undefined)).end(JSON.stringify(body));
  });
}
const CALLBACK = "application/json;callbackSpec=1.0";

test("subscriptions take none of the connections that there are", async () => {
  const own = await start({ XP_GATEWAY_CALLBACK_ORIGINS: router.origin, XP_HTTP_MAX_CONNECTIONS: "4" });
  const { token } = await own.signIn("COLLECTOR");
  for (let count = 0; count < 6; count++) {
    const body = { query: MOVED, extensions: { subscription: wanted() } };
    assert.equal(await alone(own.url, token, body, CALLBACK), 200, `subscription ${count}`);
  }
  assert.equal(await alone(own.url, undefined, { query: "{ __typename }" }), 200);
  assert.equal(await own.stop(), 0);
});

test("a router that does not confirm takes none of the places that there are for requests", async () => {
  const own = await start({ XP_GATEWAY_CALLBACK_ORIGINS: router.origin, XP_HTTP_MAX_CONCURRENT_REQUESTS: "1" });
  const { token } = await own.signIn("COLLECTOR");
  let thaw, asked;
  const thawed = new Promise((resolve) => (thaw = resolve));
  const frozen = new Promise((resolve) => (asked = resolve));
  router.answer = () => (asked("asked"), thawed.then(() => 204));
  const subscribing = alone(own.url, token, { query: MOVED, extensions: { subscription: wanted() } }, CALLBACK);
  assert.equal(await Promise.race([frozen, subscribing]), "asked");
  assert.equal(await alone(own.url, undefined, { query: "{ __typename }" }), 200);
  thaw();
  assert.equal(await subscribing, 200);
  router.answer = () => 204;
  assert.equal(await own.stop(), 0);
});

test("the server's end is told, and without an origin the protocol is off", async () => {
  const own = await start({ XP_GATEWAY_CALLBACK_ORIGINS: router.origin });
  const { token } = await own.signIn("COLLECTOR");
  const subscription = wanted();
  assert.equal((await ask(token, subscription, { url: own.url })).status, 200);
  assert.equal(await own.stop(), 0);
  const complete = await router.expect(subscription.subscriptionId, "complete");
  assert.equal(complete.errors[0].extensions.code, "SUBSCRIPTION_INTERRUPTED");
  const off = await start();
  const again = await off.signIn("COLLECTOR");
  assert.equal((await ask(again.token, wanted(), { url: off.url })).status, 403);
  assert.equal(await off.stop(), 0);
});
