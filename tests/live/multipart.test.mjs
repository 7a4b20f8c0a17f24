// Apollo's multipart protocol (subscriptionSpec="1.0"): as Apollo Client reads it, and byte for byte.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ApolloLink, HttpLink, execute, gql } from "@apollo/client/core/index.js";

import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";
const ACCEPT = 'multipart/mixed;subscriptionSpec="1.0", application/json';

let xp;
before(async () => (xp = await start()));
after(async () => assert.equal(await xp.stop(), 0));

/** Subscribes as Apollo Client does; what comes is kept in the order in which it comes. */
async function subscribe(token, query) {
  const before = await xp.subscriptions("multipart");
  const link = ApolloLink.from([new HttpLink({ uri: xp.url, headers: { authorization: `Bearer ${token}` } })]);
  const heard = { next: [], done: undefined };
  const observable = execute(link, { query: gql(query) });
  heard.ended = new Promise((resolve) => {
    heard.subscription = observable.subscribe({
      next: (value) => heard.next.push(value),
      error: (error) => resolve({ error }),
      complete: () => resolve({}),
    });
  });
  await xp.expectSubscriptions("multipart", before + 1);
  return heard;
}

async function until(what, message) {
  for (let tries = 0; tries < 200; tries++) {
    if (what()) return;
    await pause(25);
  }
  assert.fail(message);
}

const ask = (token, query, accept = ACCEPT) =>
  fetch(xp.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept, ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ query }),
  });

/** The JSON of each part. */
const parts = (text) =>
  text
    .split("\r\n--graphql")
    .slice(1, -1)
    .map((part) => {
      assert.match(part, /^\r\ncontent-type: application\/json\r\n\r\n/);
      return JSON.parse(part.slice(part.indexOf("\r\n\r\n")));
    });

test("Apollo Client gets each event as it happens, and is forgotten when it leaves", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const heard = await subscribe(token, MOVED);
  for (const latitude of [41.5, 42.5]) {
    await xp.goTo(token, latitude);
    await until(() => heard.next.at(-1)?.data?.locationUpdated.latitude === latitude, `${latitude} did not arrive`);
  }
  assert.equal(heard.next.length, 2, "what says that the stream is alive is no event");
  heard.subscription.unsubscribe();
  await xp.expectSubscriptions("multipart", 0);
});

test("the parts have their envelope, heartbeats are empty objects, and the end says why", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const response = await ask(token, MOVED);
  assert.equal(response.headers.get("content-type"), 'multipart/mixed;boundary="graphql";subscriptionSpec="1.0"');
  assert.equal(response.headers.get("cache-control"), "no-store");
  const text = response.text();
  await xp.goTo(token, 43.5);
  await pause(300);
  await xp.endSession(other.token, session);
  const begun = Date.now();
  const body = await text;
  assert.ok(Date.now() - begun < 1000, "within a second");
  assert.ok(body.startsWith("\r\n--graphql\r\n") && body.endsWith("\r\n--graphql--\r\n"), JSON.stringify(body));
  const said = parts(body);
  assert.deepEqual(said[0], {}, "alive");
  const rest = said.filter((part) => Object.keys(part).length > 0);
  const { resumeToken } = rest[0].payload.extensions;
  assert.deepEqual(rest[0], { payload: { data: { locationUpdated: { latitude: 43.5 } }, extensions: { resumeToken } } });
  assert.equal(rest.length, 2);
  assert.equal(rest[1].payload, null);
  assert.equal(rest[1].errors[0].extensions.code, "UNAUTHENTICATED");
});

test("Apollo Client hears of the end as an error of the protocol", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const heard = await subscribe(token, MOVED);
  await xp.endSession(other.token, session);
  await heard.ended;
  const symbols = Object.getOwnPropertySymbols(heard.next.at(-1).extensions);
  assert.match(JSON.stringify(symbols.map((symbol) => heard.next.at(-1).extensions[symbol])), /UNAUTHENTICATED/);
});

test("queries are answered as ever, and what cannot run is told", async () => {
  const { token } = await xp.signIn("EDITOR");
  const query = await ask(token, "{ __typename }");
  assert.match(query.headers.get("content-type"), /^application\/json/);
  const refused = parts(await (await ask(undefined, MOVED)).text()).filter((part) => part.payload);
  assert.equal(refused.length, 1);
  assert.equal(refused[0].payload.errors[0].extensions.code, "UNAUTHENTICATED");
  const unknown = await ask(token, "subscription { nothing }");
  assert.equal((await unknown.json()).errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
  const deferred = await ask(token, "{ __typename }", "multipart/mixed;deferSpec=20220824, application/json");
  assert.match(deferred.headers.get("content-type"), /^application\/json/, "another protocol");
});

test("of two kinds of stream the first is taken", async () => {
  const { token } = await xp.signIn("EDITOR");
  const abort = new AbortController();
  const live = await fetch(xp.url, {
    method: "POST",
    signal: abort.signal,
    headers: {
      "content-type": "application/json",
      accept: 'multipart/mixed;subscriptionSpec="1.0", text/event-stream',
      authorization: `Bearer ${token}`,
    },
    body: JSON.stringify({ query: MOVED }),
  });
  assert.match(live.headers.get("content-type"), /^multipart\/mixed/);
  abort.abort();
  await xp.expectSubscriptions("multipart", 0);
});

test("the server's end is told as an error, so that clients come back", async () => {
  const own = await start();
  const { token } = await own.signIn("COLLECTOR");
  const response = await fetch(own.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: ACCEPT, authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: MOVED }),
  });
  const text = response.text();
  await own.expectSubscriptions("multipart", 1);
  assert.equal(await own.stop(), 0);
  const said = parts(await text).filter((part) => Object.keys(part).length > 0);
  assert.deepEqual(said.map(({ payload, errors }) => [payload, errors[0].extensions.code]), [[null, "SUBSCRIPTION_INTERRUPTED"]]);
});
