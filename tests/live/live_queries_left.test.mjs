// Live queries whose client goes, or takes nothing, while they are executed: the database is there for others. Not here: what they leave
// in memory (`live_queries_leaks`).
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import WebSocket from "ws";

import { pause, start } from "./xp.mjs";

const FIELDS = "fragment U on User { id displayName email createdAt updatedAt sessions(first: 20) { totalCount nodes { id name userAgent ipAddress } } activity(first: 20) { nodes { id actionType } } }";
const MANY = Array.from({ length: 2 }, (_, number) => `u${number}: users(first: $first) { nodes { ...U } }`).join(" ");
/** Queries that nobody else asks, so that each is executed. */
const QUERY = `query($first: Int!, $search: String!) @live(throttle: 50) {
  users(first: $first) { totalCount nodes { ...U } } ${MANY} me { displayName } found: users(filter: { search: $search }) { totalCount } } ${FIELDS}`;

/** What takes longer than this waits for something that is held. */
const PATIENT = { XP_GRAPH_MAX_COST: "1000000", XP_HTTP_REQUEST_TIMEOUT: "60s", XP_DATABASE_ACQUIRE_TIMEOUT: "60s" };
const HELD_MS = 7_000;

async function socketOf(xp, token) {
  const socket = new WebSocket(xp.socketUrl, "graphql-transport-ws");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  await once(socket, "message");
  return socket;
}

function subscribe(socket, number, first, extensions) {
  const payload = { query: QUERY, variables: { first, search: `${number}` }, extensions };
  socket.send(JSON.stringify({ id: `${number}`, type: "subscribe", payload }));
}

/** Others read what is in no cache, and write. */
async function othersAreServed(xp, token, rounds) {
  let longest = 0;
  for (let round = 0; round < rounds; round++) {
    const began = performance.now();
    await xp.ask(token, `{ users(first: ${30 + round}) { totalCount } }`);
    await xp.ask(token, `mutation { updateProfile(input: { displayName: "Round ${round}" }) { user { id } } }`);
    longest = Math.max(longest, performance.now() - began);
    await pause(100);
  }
  assert.ok(longest < HELD_MS, `${longest} ms`);
}

for (const [kind, extensions] of Object.entries({ shared: {}, "its own": { explain: true } })) {
  test(`who goes while a live query is executed holds nothing (the execution is ${kind})`, async (t) => {
    const xp = await start(PATIENT);
    t.after(() => xp.end("SIGKILL"));
    const { token } = await xp.signIn("ADMIN");
    const goAfter = async (number, ms) => {
      const socket = await socketOf(xp, token);
      subscribe(socket, number, 1 + (number % 60), extensions);
      await pause(ms);
      socket._socket.resetAndDestroy();
    };
    for (let round = 0; round < 20; round++) {
      await Promise.all(Array.from({ length: 10 }, (_, index) => goAfter(round * 10 + index, Math.random() * 25)));
    }
    await xp.expectSubscriptions("websocket", 0);
    await othersAreServed(xp, token, 5);
    assert.equal(await xp.stop(), 0);
  });
}

for (const [kind, extensions] of Object.entries({ shared: {}, "its own": { explain: true } })) {
  test(`who takes nothing while live queries are executed holds up nobody (the execution is ${kind})`, async (t) => {
    const xp = await start(PATIENT);
    t.after(() => xp.end("SIGKILL"));
    const { token } = await xp.signIn("ADMIN");
    // At several moments of the first executions; each write makes them anew, until nothing more fits in between.
    for (const ms of [140, 150, 160, 170, 180, 200]) {
      const socket = await socketOf(xp, token);
      for (let number = 0; number < 30; number++) subscribe(socket, `${ms} ${number}`, 100, extensions);
      await pause(ms);
      socket._socket.pause();
      await othersAreServed(xp, token, 25);
      socket.terminate();
    }
    await xp.expectSubscriptions("websocket", 0);
    await othersAreServed(xp, token, 5);
    assert.equal(await xp.stop(), 0);
  });
}
