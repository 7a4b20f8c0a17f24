// What live queries take while they are open, and leave behind: many of them on a few WebSockets. XP_LIVE_QUERIES says how many there
// are; from a few thousand on they are also opened and closed for longer. Not here: what they tell (`live_queries`).
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import WebSocket from "ws";

import { openForm, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const COUNT = Number(process.env.XP_LIVE_QUERIES ?? 1_000);
const IS_LONG = COUNT >= 5_000;
const CYCLES = IS_LONG ? 2_000 : 400;
/** What is done before it is measured: caches and pools are filled by then. */
const WARM = IS_LONG ? 500 : 200;
const AT_ONCE = 25;
/** What the server allows on one socket. */
const ON_ONE_SOCKET = 50;
const FORMS = 20;
const MOST_GROWTH_KIB = 16 * 1024;
/** What all of them share weighs more where they are few. */
const MOST_EACH_KIB = IS_LONG ? 16 : 32;
const ACCEPTED = ["text/event-stream", 'multipart/mixed;subscriptionSpec="1.0"'];

const QUERY = "query($form: ID!) @live { form(id: $form) { id title submissionCount submissions(first: 10) { nodes { id data } } } }";

/** A server, who asks, and forms with submissions. */
async function served(t) {
  const bounds = ["CONNECTIONS", "CONNECTIONS_PER_ADDRESS", "SOCKETS_PER_ACCOUNT", "SUBSCRIPTIONS_PER_ACCOUNT"];
  const many = Object.fromEntries(bounds.map((bound) => [`XP_HTTP_MAX_${bound}`, `${4 * COUNT}`]));
  // On a busy machine.
  const xp = await start({ ...many, XP_HTTP_REQUEST_TIMEOUT: "30s" });
  t.after(() => xp.end("SIGKILL"));
  const token = await xp.mint("editor@example.com", 86_400);
  const collector = await xp.mint("collector@example.com", 86_400);
  const forms = [];
  while (forms.length < FORMS) forms.push(await openForm(xp, token));
  for (const form of forms) await submit(xp, collector, form, 1);
  return { xp, token, collector, forms };
}

const asked = (form, extensions) => ({ query: QUERY, variables: { form }, extensions });

async function socketOf({ xp, token }) {
  const socket = new WebSocket(xp.socketUrl, "graphql-transport-ws");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  await once(socket, "message");
  return socket;
}

async function expectNone(xp) {
  for (let tries = 0; tries < 900; tries++) {
    const counts = await Promise.all(["websocket", "sse", "multipart"].map((transport) => xp.subscriptions(transport)));
    if (counts.every((count) => count === 0)) return;
    await pause(100);
  }
  for (const transport of ["websocket", "sse", "multipart"]) assert.equal(await xp.subscriptions(transport), 0, transport);
}

/** Begins a live query, and is gone after its first answer, over each transport. */
async function comeAndGo(world, how) {
  const { xp, token, forms } = world;
  const request = asked(forms[how % FORMS], how % 2 ? { jsonPatch: true } : {});
  if (how % 4 < 2) {
    const socket = await socketOf(world);
    socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: request }));
    await once(socket, "message");
    if (how % 4 === 0) return socket._socket.resetAndDestroy();
    socket.send(JSON.stringify({ id: "1", type: "complete" }));
    return socket.close();
  }
  const control = new AbortController();
  const response = await fetch(xp.url, {
    method: "POST",
    signal: control.signal,
    headers: { "content-type": "application/json", accept: ACCEPTED[how % 4 - 2], authorization: `Bearer ${token}` },
    body: JSON.stringify(request),
  });
  // A busy machine may refuse a stream for the moment (503).
  assert.ok([200, 503].includes(response.status), `${response.status}`);
  if (response.ok) await response.body.getReader().read();
  control.abort();
}

test(`${CYCLES} live queries that are opened and closed leave nothing behind`, async (t) => {
  const world = await served(t);
  const { xp } = world;
  const many = async (from, to) => {
    for (let done = from; done < to; done += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => comeAndGo(world, done + index)));
    }
    await expectNone(xp);
    await pause(500);
    return xp.memory();
  };
  const warm = await many(0, WARM);
  const end = await many(WARM, WARM + CYCLES);
  console.log(`resident: ${warm} KiB after ${WARM} live queries, ${end} KiB after ${CYCLES} more`);
  assert.ok(end - warm < MOST_GROWTH_KIB, `${warm} KiB after ${WARM} live queries, ${end} KiB after ${CYCLES} more`);
  assert.equal(await xp.stop(), 0);
});

for (const [kind, extensions] of Object.entries({ whole: {}, "by patches": { jsonPatch: true } })) {
  test(`${COUNT} live queries take little memory above their sockets (${kind})`, async (t) => {
    const world = await served(t);
    const { xp, collector, forms } = world;
    // Allocators keep what was used once: it is there before it is measured.
    for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => comeAndGo(world, index)));
    await expectNone(xp);
    const sockets = [];
    t.after(() => sockets.forEach((socket) => socket.terminate()));
    while (sockets.length < COUNT / ON_ONE_SOCKET) sockets.push(await socketOf(world));
    await pause(500);
    const before = await xp.memory();

    const heard = new Map();
    let answers = 0;
    let odd;
    const begin = (place) => {
      const form = forms[place % FORMS];
      const payload = asked(form, extensions);
      sockets[Math.floor(place / ON_ONE_SOCKET)].send(JSON.stringify({ id: `${place}`, type: "subscribe", payload }));
    };
    for (const socket of sockets) {
      socket.on("message", (message) => {
        const { type, id, payload } = JSON.parse(message);
        if (type === "next") {
          heard.set(id, (heard.get(id) ?? 0) + 1);
          answers += 1;
        } else if (type === "error" && JSON.stringify(payload).includes("OVERLOADED")) setTimeout(() => begin(Number(id)), 200);
        else if (type === "ping") socket.send('{"type":"pong"}');
        else odd = `${message}`;
      });
      socket.on("close", (code) => (odd ??= `closed with ${code}`));
    }
    const haveAnswers = async (count) => {
      for (let tries = 0; answers < count; await pause(20)) assert.ok(tries++ < 9_000 && !odd, `${answers} of ${count}; ${odd}`);
    };
    for (let place = 0; place < COUNT; place++) {
      begin(place);
      // What one account may ask at once is bounded.
      if (place % AT_ONCE === 0) await haveAnswers(place - AT_ONCE);
    }
    await haveAnswers(COUNT);
    await pause(1_000);
    const open = await xp.memory();
    // Each is told once more, and again, when none of it is new any more.
    const times = [];
    for (let round = 1; round <= 2; round++) {
      const began = performance.now();
      for (const form of forms) await submit(xp, collector, form, round + 1);
      await haveAnswers(COUNT * (round + 1));
      times.push(Math.round(performance.now() - began));
      await pause(1_000);
    }
    const told = await xp.memory();
    odd = odd ?? [...heard.values()].find((count) => count < 3);
    assert.equal(odd, undefined, "each is told of each change");
    const each = (kib) => ((kib - before) / COUNT).toFixed(1);
    console.log(
      `KiB for each of ${COUNT} live queries (${kind}) above its socket: ${each(open)} when it is answered, ${each(told)} after two changes;`,
      `all of them are told of ${FORMS} writes in ${times.join(" and ")} ms`,
    );
    assert.ok(each(told) <= MOST_EACH_KIB, `${each(told)} KiB`);
    for (const socket of sockets) socket.removeAllListeners("close").terminate();
    await expectNone(xp);
    assert.equal(await xp.stop(), 0);
  });
}
