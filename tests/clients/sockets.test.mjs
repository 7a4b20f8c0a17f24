// WebSockets that hold or send much before anybody has signed in: messages that do not end, and messages that are large, deep
// or of many values. The server stays small, closes them with their code, and serves others meanwhile. Prints a table. Not
// here: how that is measured (pressure.mjs), what else is said over WebSockets (tests/live).
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { after, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { target } from "./attacked.mjs";
import { ATTACKERS, printPressure, underPressure } from "./pressure.mjs";

const MANY = 200;
const PATIENCE = 60_000;
/** Milliseconds over which attackers begin. */
const SPREAD = 3_000;
/** Messages of all attackers together, of each kind. */
const BOMBS = 80;

after(printPressure);

/** A masked frame; `first` is its first byte. */
function frame(text, first = 0x81) {
  const payload = Buffer.from(text);
  const { length } = payload;
  const head = length < 126 ? [0x80 | length] : length < 65_536 ? [254, length >> 8, length & 255] : [255, 0, 0, 0, 0, length >>> 24, (length >> 16) & 255, (length >> 8) & 255, length & 255];
  return Buffer.concat([Buffer.from([first, ...head]), Buffer.alloc(4), payload]);
}

/** A socket after its handshake; `code` is what it is closed with, once it is: 0 without a frame that says so. */
async function open() {
  const socket = connect({ host: target.hostname, port: Number(target.port) });
  let received = Buffer.alloc(0);
  const result = { socket, status: undefined, code: undefined };
  result.ended = new Promise((done) => socket.on("close", () => ((result.code ??= 0), done())));
  socket.on("error", () => {});
  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    if (result.status === undefined && received.includes("\r\n\r\n")) {
      result.status = Number(received.toString("latin1").slice(9, 12));
      received = received.subarray(received.indexOf("\r\n\r\n") + 4);
      socket.emit("greeted");
    }
    while (received.length >= 2 && result.status === 101) {
      const short = received[1] & 127;
      const [head, length] = short === 126 ? [4, received.length < 4 ? Infinity : received.readUInt16BE(2)] : [2, short];
      if (received.length < head + length) break;
      if ((received[0] & 15) === 8) result.code ??= received.readUInt16BE(head);
      received = received.subarray(head + length);
    }
  });
  const greeted = Promise.race([once(socket, "greeted"), result.ended]);
  socket.write(
    `GET /graphql HTTP/1.1\r\nHost: ${target.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
      `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n`,
  );
  await greeted;
  return result;
}

const INIT = frame('{"type":"connection_init"}');

function told(results) {
  const counts = new Map();
  for (const { code, status } of results) {
    const what = status === 101 ? (code ?? "open") : status;
    counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  return [...counts].map(([what, count]) => `${what}: ${count}`).sort().join(", ");
}

/** So many sockets send this, then a pong every second, until the server has closed them all. */
async function held(count, bytes, codes) {
  const all = await Promise.all(Array.from({ length: count }, open));
  for (const { socket } of all) socket.write(bytes);
  const pongs = setInterval(() => all.forEach(({ socket }) => socket.destroyed || socket.write(frame("", 0x8a))), 1_000);
  try {
    await Promise.race([Promise.all(all.map(({ ended }) => ended)), wait(PATIENCE, undefined, { ref: false })]);
  } finally {
    clearInterval(pongs);
    for (const { socket } of all) socket.destroy();
  }
  const verdict = told(all);
  assert.ok(all.every(({ code }) => codes.includes(code)), verdict);
  return { sent: all.reduce((sum, { socket }) => sum + socket.bytesWritten, 0), verdict };
}

const ANNOUNCED = frame("x".repeat(2 << 20)).subarray(0, 63 << 10);
const UNFINISHED = frame("x".repeat(60 << 10), 0x01);

for (const count of [ATTACKERS, MANY]) {
  const holding = (name, bytes, codes) => {
    const title = `WebSocket: ${name}, ${count} sockets`;
    test(title, () => underPressure(title, () => held(count, bytes, codes)));
  };
  holding("2 MiB announced", Buffer.concat([INIT, ANNOUNCED]), [1009]);
  holding("unfinished, pongs between", Buffer.concat([INIT, UNFINISHED]), [4408]);
  holding("unfinished before init", UNFINISHED, [4408]);
}

/** Messages of this kind, sent again and again by new sockets. */
async function bombs(count, messages, codes) {
  const bytes = Buffer.concat(messages);
  let sent = 0;
  const results = [];
  const attacker = async (_, index) => {
    // Not all in one moment: this process would have the others wait, not the server.
    await wait((index * SPREAD) / count);
    for (let round = 0; round < Math.max(1, BOMBS / count); round++) {
      const result = await open();
      result.socket.write(bytes);
      await Promise.race([result.ended, wait(PATIENCE, undefined, { ref: false })]);
      sent += result.socket.bytesWritten;
      result.socket.destroy();
      results.push(result);
    }
  };
  await Promise.all(Array.from({ length: count }, attacker));
  // A busy server may be too late for those who have not said who they are.
  for (const { code } of results) assert.ok([...codes, 4408].includes(code), told(results));
  return { sent, verdict: told(results) };
}

const list = (item, bytes) => `[${`${item},`.repeat(Math.floor(bytes / (item.length + 1)))}${item}]`;
const INIT_BOMBS = {
  "of 2 MiB": [[frame(`{"type":"connection_init","payload":{"x":${list('{"":0}', 2 << 20)}}}`)], [1009]],
  "of 60 KiB": [[frame(`{"type":"connection_init","payload":{"x":${list('{"":0}', 60 << 10)}}}`)], [1009, 4400]],
  "nested deep": [[frame(`{"type":"connection_init","payload":${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}}`)], [4400]],
};
const PING_BOMBS = {
  "of 60 KiB": [[INIT, frame(`{"type":"ping","payload":{"x":${list('{"":0}', 60 << 10)}}}`)], [1009, 4400]],
  "nested deep": [[INIT, frame(`{"type":"ping","payload":${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}}`)], [4400]],
  "before connection_init": [[...Array(20).fill(frame(`{"type":"ping","payload":{"x":"${"x".repeat(15 << 10)}"}}`)), frame('{"type":"x"}')], [4400]],
};
for (const count of [ATTACKERS, MANY]) {
  for (const [kind, attacks] of Object.entries({ init: INIT_BOMBS, ping: PING_BOMBS })) {
    for (const [name, [messages, codes]] of Object.entries(attacks)) {
      if (name === "before connection_init" && count === MANY) continue;
      const title = `WebSocket: ${kind} ${name}, ${count} sockets`;
      test(title, () => underPressure(title, () => bombs(count, messages, codes)));
    }
  }
}
