// Server-sent events as the clients of the package graphql-sse read them ("distinct connections mode").
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { createClient } from "graphql-sse";

import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";

let xp;
before(async () => (xp = await start()));
after(async () => assert.equal(await xp.stop(), 0));

const client = (token) =>
  createClient({ url: xp.url, retryAttempts: 0, headers: token ? { authorization: `Bearer ${token}` } : {} });

async function subscribed(client, query) {
  const before = await xp.subscriptions("sse");
  const events = client.iterate({ query });
  const first = events.next();
  first.catch(() => {});
  await xp.expectSubscriptions("sse", before + 1);
  return { first, events };
}

/** The text of a stream until it ends. */
const stream = (headers, body) =>
  fetch(xp.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream", ...headers },
    body: JSON.stringify(body),
  });

test("events arrive, and a stream that is left is forgotten", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const { first, events } = await subscribed(client(token), MOVED);
  await xp.goTo(token, 21.5);
  assert.equal((await first).value.data.locationUpdated.latitude, 21.5);
  const second = events.next();
  await xp.goTo(token, 22.5);
  assert.equal((await second).value.data.locationUpdated.latitude, 22.5);
  await events.return();
  await xp.expectSubscriptions("sse", 0);
});

test("queries and mutations are streams of one answer", async () => {
  const { token, session } = await xp.signIn("EDITOR");
  const results = [];
  for await (const result of client(token).iterate({ query: "{ currentSession { id } }" })) results.push(result);
  assert.deepEqual(results, [{ data: { currentSession: { id: session } } }]);
});

test("what cannot run is told in the stream", async () => {
  const { token } = await xp.signIn("EDITOR");
  const { value } = await client(token).iterate({ query: "subscription { nothing }" }).next();
  assert.equal(value.errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
  const anonymous = await client(undefined).iterate({ query: MOVED }).next();
  assert.equal(anonymous.value.errors[0].extensions.code, "UNAUTHENTICATED");
});

test("a GET is answered with the same events, byte for byte", async () => {
  const url = new URL(xp.url);
  url.search = new URLSearchParams({ query: "{ __typename }" });
  const response = await fetch(url, { headers: { accept: "text/event-stream", "apollo-require-preflight": "1" } });
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const wanted = 'event: next\ndata: {"data":{"__typename":"Query"}}\n\nevent: complete\ndata: \n\n';
  assert.equal((await response.text()).replaceAll(":\n\n", ""), wanted);
  url.search = new URLSearchParams({ query: "mutation { signOut { userErrors { code } } }" });
  const refused = await fetch(url, { headers: { accept: "text/event-stream", "apollo-require-preflight": "1" } });
  assert.match(await refused.text(), /"errors":\[.*"GET and QUERY run queries only/);
});

test("who takes JSON as well gets a stream for subscriptions only", async () => {
  const accept = "application/graphql-response+json, application/json, text/event-stream";
  const response = await stream({ accept }, { query: "{ __typename }" });
  assert.match(response.headers.get("content-type"), /^application\/graphql-response\+json/);
  const { token } = await xp.signIn("EDITOR");
  const abort = new AbortController();
  const live = await fetch(xp.url, {
    method: "POST",
    signal: abort.signal,
    headers: { "content-type": "application/json", accept, authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: MOVED }),
  });
  assert.equal(live.headers.get("content-type"), "text/event-stream");
  abort.abort();
});

test("a token that is not valid is refused with its status", async () => {
  const response = await stream({ authorization: "Bearer nonsense" }, { query: MOVED });
  assert.equal(response.status, 401);
});

test("the stream of a session that is ended ends within a second, and says so", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const response = await stream({ authorization: `Bearer ${token}` }, { query: MOVED });
  const text = response.text();
  await xp.endSession(other.token, session);
  const begun = Date.now();
  assert.match(await text, /UNAUTHENTICATED[^\n]*\n\nevent: complete\ndata: \n\n$/);
  assert.ok(Date.now() - begun < 1000);
});

test("10,000 streams that are left leave nothing behind", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const cycle = async () => {
    const abort = new AbortController();
    const response = await fetch(xp.url, {
      method: "POST",
      signal: abort.signal,
      headers: { "content-type": "application/json", accept: "text/event-stream", authorization: `Bearer ${token}` },
      body: JSON.stringify({ query: MOVED }),
    });
    assert.equal(response.status, 200);
    abort.abort();
  };
  const many = async (count) => {
    for (let done = 0; done < count; done += 50) await Promise.all(Array.from({ length: 50 }, cycle));
    await xp.expectSubscriptions("sse", 0);
    await pause(500);
    return xp.memory();
  };
  const warm = await many(2_000);
  const end = await many(8_000);
  console.log(`resident: ${warm} KiB after 2,000 streams, ${end} KiB after 10,000`);
  assert.ok(end - warm < 8 * 1024, `${warm} KiB after 2,000 streams, ${end} KiB after 10,000`);
});

test("a quiet stream is kept alive longer than the server waits for requests", async () => {
  const own = await start({ XP_HTTP_HEADER_TIMEOUT: "1s", XP_HTTP_REQUEST_TIMEOUT: "1s", XP_HTTP_BODY_TIMEOUT: "1s" });
  const { token } = await own.signIn("COLLECTOR");
  const events = createClient({ url: own.url, retryAttempts: 0, headers: { authorization: `Bearer ${token}` } }).iterate({ query: MOVED });
  const first = events.next();
  await pause(3_000);
  await own.goTo(token, 30.5);
  assert.equal((await first).value.data.locationUpdated.latitude, 30.5);
  const last = events.next();
  last.catch(() => {});
  assert.equal(await own.stop(), 0);
  await assert.rejects(last, /active streams/, "the client knows that the stream was interrupted");
});

test("a stream ends without `complete` where its client should come back: token expired, server stops", async () => {
  const own = await start();
  const { token } = await own.signIn("COLLECTOR");
  const live = async (token) => {
    const headers = { "content-type": "application/json", accept: "text/event-stream", authorization: `Bearer ${token}` };
    const response = await fetch(own.url, { method: "POST", headers, body: JSON.stringify({ query: MOVED }) });
    return response.text();
  };
  const expired = await live(await own.mint("collector@example.com", 3));
  assert.equal(expired.replaceAll(":\n\n", ""), "");
  const stopped = live(token);
  await own.expectSubscriptions("sse", 1);
  assert.equal(await own.stop(), 0);
  assert.equal((await stopped).replaceAll(":\n\n", ""), "");
});

test("an account has so many subscriptions at once, over all transports", async () => {
  const own = await start({ XP_HTTP_MAX_SUBSCRIPTIONS_PER_ACCOUNT: "2" });
  const [{ token }, other] = [await own.signIn("COLLECTOR"), await own.signIn("EDITOR")];
  const abort = new AbortController();
  const live = (token, accept = "text/event-stream") =>
    fetch(own.url, {
      method: "POST",
      signal: abort.signal,
      headers: { "content-type": "application/json", accept, authorization: `Bearer ${token}` },
      body: JSON.stringify({ query: MOVED }),
    });
  await live(token);
  await live(token, 'multipart/mixed;subscriptionSpec="1.0"');
  await own.expectSubscriptions("multipart", 1);
  assert.match(await (await live(token)).text(), /"RATE_LIMITED"/);
  await live(other.token);
  await own.expectSubscriptions("sse", 2);
  abort.abort();
  await own.expectSubscriptions("sse", 0);
  const again = new AbortController();
  const response = await fetch(own.url, {
    method: "POST",
    signal: again.signal,
    headers: { "content-type": "application/json", accept: "text/event-stream", authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: MOVED }),
  });
  assert.equal(response.status, 200);
  await own.expectSubscriptions("sse", 1);
  again.abort();
  assert.equal(await own.stop(), 0);
});
