// Few clients that hold much: they take no answer or take it slowly, or send bodies that never end, over HTTP/1.1 and
// HTTP/2. The server stays small, gives each of them up, and serves others meanwhile. Prints a table: bytes sent, memory
// above idle, how long others wait, what became of the attackers. Not here: how that is measured (pressure.mjs), bounds on
// one request (attacks.test.mjs), what is no HTTP (slow.test.mjs).
import assert from "node:assert/strict";
import http2 from "node:http2";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { target } from "./attacked.mjs";
import { ATTACKERS, printPressure, underPressure } from "./pressure.mjs";
import { counter, token } from "./xp.mjs";

const STREAMS = 100;
const PATIENCE = 60_000;
const INTROSPECTION = "{ __schema { types { name description fields { name description args { name description type { name } } type { name } } } } }";
const PEOPLE = "{ users(first: 100) { nodes { id displayName email role createdAt sessions(first: 20) { nodes { id createdAt } } } } }";

let bearer;
before(async () => (bearer = `Bearer ${await token()}`));
after(printPressure);

async function until(isDone, what) {
  for (const end = performance.now() + PATIENCE; !isDone(); await wait(100)) {
    assert.ok(performance.now() < end, what());
  }
}

const ask = (query, headers = {}) => ({
  ":method": "GET",
  ":path": `/graphql?query=${encodeURIComponent(query)}`,
  "apollo-require-preflight": "1",
  ...headers,
});

/** 16 connections of HTTP/2 with 100 streams each; `read` is given each stream. Done when every stream has ended. */
async function overHttp2(headers, settings, read) {
  let ended = 0;
  const answered = new Map();
  const sessions = Array.from({ length: ATTACKERS }, () => {
    const session = http2.connect(target.origin, { settings });
    session.on("error", () => {});
    for (let count = 0; count < STREAMS; count++) {
      const stream = session.request(headers, { endStream: true });
      let isReset = false;
      stream.on("response", ({ ":status": status }) => answered.set(status, (answered.get(status) ?? 0) + 1));
      stream.on("error", () => (isReset = true));
      stream.on("close", () => {
        ended += 1;
        if (isReset || stream.rstCode) answered.set("cut", (answered.get("cut") ?? 0) + 1);
      });
      read?.(stream);
    }
    return session;
  });
  try {
    await until(() => ended === ATTACKERS * STREAMS, () => `${ended} of ${ATTACKERS * STREAMS} streams have ended`);
  } finally {
    for (const session of sessions) session.destroy();
  }
  const sent = sessions.reduce((sum, session) => sum + (session.socket?.bytesWritten ?? 0), 0);
  return { sent: sent || ATTACKERS * STREAMS * 60, verdict: told(answered) };
}

const told = (counts) => [...counts].map(([what, count]) => `${what}: ${count}`).sort().join(", ");

const WITHOUT_WINDOW = { initialWindowSize: 0 };

test("answers that HTTP/2 has no window for", () =>
  underPressure(`HTTP/2, window 0: metrics, ${ATTACKERS} × ${STREAMS}`, () =>
    overHttp2({ ":path": "/metrics" }, WITHOUT_WINDOW)));

test("answers of the graph that HTTP/2 has no window for", () =>
  underPressure(`HTTP/2, window 0: the schema, ${ATTACKERS} × ${STREAMS}`, () =>
    overHttp2(ask(INTROSPECTION), WITHOUT_WINDOW)));

test("compressed answers that HTTP/2 has no window for", () =>
  underPressure(`HTTP/2, window 0: the schema in br, ${ATTACKERS} × ${STREAMS}`, () =>
    overHttp2(ask(INTROSPECTION, { "accept-encoding": "br" }), WITHOUT_WINDOW)));

test("answers for a signed-in account that HTTP/2 has no window for", () =>
  underPressure(`HTTP/2, window 0: people, signed in, ${ATTACKERS} × ${STREAMS}`, () =>
    overHttp2(ask(PEOPLE, { authorization: bearer }), WITHOUT_WINDOW)));

test("answers that are taken by the byte over HTTP/2", () =>
  underPressure(`HTTP/2, 256 bytes a second: metrics, ${ATTACKERS} × ${STREAMS}`, () =>
    overHttp2({ ":path": "/metrics" }, { initialWindowSize: 512 }, (stream) => {
      stream.on("readable", () => {});
      const reading = setInterval(() => stream.read(256), 1_000);
      stream.on("close", () => clearInterval(reading));
    })));

/** 16 connections of HTTP/1.1 that ask for much; each takes so many bytes every so many milliseconds. Done when all are cut. */
async function overHttp1(path, requests, bytes, every) {
  const request = `GET ${path} HTTP/1.1\r\nhost: ${target.host}\r\napollo-require-preflight: 1\r\n\r\n`;
  let closed = 0;
  const all = Array.from({ length: ATTACKERS }, () => {
    const socket = connect({ host: target.hostname, port: Number(target.port), onread: undefined });
    socket.on("error", () => {});
    // What is not read does not show the end of the connection: writing does.
    const probing = setInterval(() => socket.write("\r\n"), 1_000);
    const reading = every && setInterval(() => socket.read(bytes), every);
    socket.on("close", () => {
      closed += 1;
      clearInterval(probing);
      clearInterval(reading);
    });
    socket.write(request.repeat(requests));
    return socket;
  });
  try {
    await until(() => closed === ATTACKERS, () => `${closed} of ${ATTACKERS} connections are cut`);
  } finally {
    for (const socket of all) socket.destroy();
  }
  const sent = all.reduce((sum, socket) => sum + socket.bytesWritten, 0);
  return { sent, verdict: `cut: ${closed}` };
}

const SCHEMA = `/graphql?query=${encodeURIComponent(INTROSPECTION)}`;

test("answers that are not taken over HTTP/1.1", { timeout: 2 * PATIENCE }, () =>
  underPressure(`HTTP/1.1, nothing is read, ${ATTACKERS} × 200 requests`, () => overHttp1(SCHEMA, 200)));

test("answers that are taken slowly over HTTP/1.1", { timeout: 3 * PATIENCE }, () =>
  underPressure(`HTTP/1.1, 64 KiB every 8 s, ${ATTACKERS} × 200 requests`, () => overHttp1(SCHEMA, 200, 64 << 10, 8_000)));

/** Bodies of HTTP/2 that never end. Done when each has its answer. */
async function neverEnding(headers, body) {
  let ended = 0;
  const answered = new Map();
  const sessions = Array.from({ length: ATTACKERS }, () => {
    const session = http2.connect(target.origin);
    session.on("error", () => {});
    for (let count = 0; count < STREAMS; count++) {
      const stream = session.request({ ":method": "POST", ":path": "/graphql", "content-type": "application/json", ...headers });
      stream.on("response", ({ ":status": status }) => answered.set(status, (answered.get(status) ?? 0) + 1));
      stream.on("error", () => {});
      stream.on("close", () => (ended += 1));
      stream.on("end", () => stream.close(http2.constants.NGHTTP2_CANCEL));
      stream.resume();
      stream.write(body);
    }
    return session;
  });
  try {
    await until(() => ended === ATTACKERS * STREAMS, () => `${ended} of ${ATTACKERS * STREAMS} bodies are given up`);
  } finally {
    for (const session of sessions) session.destroy();
  }
  assert.ok([...answered.keys()].every((status) => status === 408 || status === 503), told(answered));
  return { sent: ATTACKERS * STREAMS * body.length, verdict: told(answered) };
}

test("bodies that never end", () =>
  underPressure(`HTTP/2: bodies of 60 KiB without end, ${ATTACKERS} × ${STREAMS}`, () => neverEnding({}, Buffer.alloc(60 << 10, " "))));

test("bodies in gzip that never end", () => {
  // All of it but the last bytes, which say that it is the end.
  const packed = gzipSync(Buffer.alloc(255 << 10, " ")).subarray(0, -8);
  return underPressure(`HTTP/2: bodies in gzip without end, ${ATTACKERS} × ${STREAMS}`, () => neverEnding({ "content-encoding": "gzip" }, packed));
});

const HEAD = `POST /graphql HTTP/1.1\r\nhost: ${target.host}\r\ncontent-type: application/json\r\ncontent-length: 260000\r\n\r\n`;

test("connections of one address beyond its share", () =>
  underPressure("HTTP/1.1: 2,000 connections of one address, bodies without end", async () => {
    const before = await counter("http_server_connections_refused_total", 'reason="address"');
    let closed = 0;
    const all = [];
    for (let count = 0; count < 2_000; count++) {
      const socket = connect(Number(target.port), target.hostname);
      socket.on("error", () => {});
      socket.on("close", () => (closed += 1));
      socket.resume();
      socket.write(`${HEAD}{"query":`);
      all.push(socket);
      if (count % 100 === 0) await wait(10);
    }
    await until(() => closed === all.length, () => `${closed} of ${all.length} connections are closed`);
    const sent = all.reduce((sum, socket) => sum + socket.bytesWritten, 0);
    const refused = (await counter("http_server_connections_refused_total", 'reason="address"')) - before;
    assert.ok(refused >= 900, `${refused} are refused`);
    return { sent, verdict: `not let in: ${refused}, 408: ${all.length - refused}` };
  }));

test("bodies of a signed-in account that never end", () =>
  underPressure(`HTTP/2: bodies of 60 KiB without end, signed in, ${ATTACKERS} × ${STREAMS}`, () =>
    neverEnding({ authorization: bearer }, Buffer.alloc(60 << 10, " "))));
