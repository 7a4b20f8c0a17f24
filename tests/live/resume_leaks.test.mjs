// What streams that were resumed leave behind: nothing, however they end; and what one takes while it is open. XP_KILLS of more than a
// few makes it 10,000 streams that come and go; XP_STREAMS says how many are open at once. Not here: what they tell (`resume`).
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import WebSocket from "ws";

import { openForm, resumeToken, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const CHANGED = "subscription($form: ID!) { submissionChanged(formId: $form) { id data } }";
const IS_LONG = Number(process.env.XP_KILLS ?? 0) > 100;
const CYCLES = IS_LONG ? 10_000 : 500;
/** What is done before it is measured: caches and pools are filled by then. */
const WARM = IS_LONG ? 2_000 : 300;
const AT_ONCE = 25;
const STREAMS = Number(process.env.XP_STREAMS ?? (IS_LONG ? 2_000 : 400));
/** Submissions that each stream has missed. */
const MISSED = 5;
const MOST_GROWTH_KIB = 16 * 1024;
/** What all of them share weighs more where they are few. */
const MOST_PER_STREAM_KIB = STREAMS > 1_000 ? 16 : 32;
const ACCEPTED = ["text/event-stream", 'multipart/mixed;subscriptionSpec="1.0"'];

/** A server, a form with submissions, and a subscription that begins before them. */
async function missed(t, count) {
  const bounds = ["CONNECTIONS", "CONNECTIONS_PER_ADDRESS", "SOCKETS_PER_ACCOUNT", "SUBSCRIPTIONS_PER_ACCOUNT"];
  const xp = await start(Object.fromEntries(bounds.map((bound) => [`XP_HTTP_MAX_${bound}`, `${2 * STREAMS}`])));
  t.after(() => xp.end("SIGKILL"));
  const token = await xp.mint("editor@example.com", 86_400);
  const collector = await xp.mint("collector@example.com", 86_400);
  const form = await openForm(xp, token);
  const resumeAfter = await resumeToken(xp, token);
  for (let number = 1; number <= count; number++) await submit(xp, collector, form, number);
  return { xp, token, collector, form, request: { query: CHANGED, variables: { form }, extensions: { resumeAfter } } };
}

async function socketOf(xp, token) {
  const socket = new WebSocket(xp.socketUrl, "graphql-transport-ws");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  await once(socket, "message");
  return socket;
}

/** Comes back, and is gone before, while or after it hears what was missed. */
async function comeAndGo({ xp, token, request }, how) {
  if (how % 3 === 0) {
    const socket = await socketOf(xp, token);
    socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: request }));
    if (how % 2) await once(socket, "message");
    return socket._socket.resetAndDestroy();
  }
  const control = new AbortController();
  const response = await fetch(xp.url, {
    method: "POST",
    signal: control.signal,
    headers: { "content-type": "application/json", accept: ACCEPTED[how % 3 - 1], authorization: `Bearer ${token}` },
    body: JSON.stringify(request),
  });
  // A busy machine may refuse a stream for the moment (503).
  assert.ok([200, 503].includes(response.status), `${response.status}`);
  if (how % 2) await response.body.getReader().read();
  control.abort();
}

async function expectNone(xp) {
  for (let tries = 0; tries < 600; tries++) {
    const counts = await Promise.all(["websocket", "sse", "multipart"].map((transport) => xp.subscriptions(transport)));
    if (counts.every((count) => count === 0)) return;
    await pause(100);
  }
  for (const transport of ["websocket", "sse", "multipart"]) assert.equal(await xp.subscriptions(transport), 0, transport);
}

test(`${CYCLES} resumed streams that are left leave nothing behind`, async (t) => {
  const missing = await missed(t, MISSED);
  const { xp } = missing;
  const many = async (from, to) => {
    for (let done = from; done < to; done += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => comeAndGo(missing, done + index)));
    }
    await expectNone(xp);
    await pause(500);
    return xp.memory();
  };
  const warm = await many(0, WARM);
  const end = await many(WARM, CYCLES);
  console.log(`resident: ${warm} KiB after ${WARM} streams, ${end} KiB after ${CYCLES}`);
  assert.ok(end - warm < MOST_GROWTH_KIB, `${warm} KiB after ${WARM} streams, ${end} KiB after ${CYCLES}`);
  assert.equal(await xp.stop(), 0);
});

test(`${STREAMS} resumed streams take little memory above their sockets`, async (t) => {
  const missing = await missed(t, 1);
  const { xp, token, collector, form } = missing;
  // Allocators keep what was used once: it is there before it is measured.
  for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => comeAndGo(missing, index)));
  await expectNone(xp);
  const sockets = [];
  t.after(() => sockets.forEach((socket) => socket.terminate()));
  while (sockets.length < STREAMS) sockets.push(...(await Promise.all(Array.from({ length: AT_ONCE }, () => socketOf(xp, token)))));
  await pause(500);
  const before = await xp.memory();

  let heard = 0;
  const odd = [];
  const haveHeard = async (count) => {
    for (let tries = 0; heard < count; await pause(20)) assert.ok(tries++ < 3_000 && odd.length === 0, `${heard} of ${count}; ${odd[0]}`);
  };
  for (const [index, socket] of sockets.entries()) {
    const subscribe = () => socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: missing.request }));
    socket.on("message", (message) => {
      const text = `${message}`;
      if (text.includes('"type":"next"')) heard++;
      else if (text.includes("OVERLOADED")) setTimeout(subscribe, 200);
      else odd.push(text);
    });
    socket.on("close", (code) => odd.push(code));
    subscribe();
    // What one account may ask at once is bounded.
    if (index % AT_ONCE === 0) await haveHeard(index);
  }
  await haveHeard(STREAMS);
  await pause(500);
  const resumed = await xp.memory();
  await submit(xp, collector, form, 2);
  await haveHeard(2 * STREAMS);
  await pause(500);
  const after = await xp.memory();
  const perStream = (kib) => ((kib - before) / STREAMS).toFixed(1);
  console.log(`KiB for each of ${STREAMS} streams above its socket: ${perStream(resumed)} when resumed, ${perStream(after)} after an event`);
  assert.ok(perStream(after) <= MOST_PER_STREAM_KIB, `${perStream(after)} KiB`);
  for (const socket of sockets) socket.terminate();
  await expectNone(xp);
  assert.equal(await xp.stop(), 0);
});
