// Connections that are the attack: they send slowly, or nothing, or what is no HTTP, or do not read. Each is cut off, costs
// little, and is counted. Not here: requests (attacks.test.mjs).
import assert from "node:assert/strict";
import { connect } from "node:net";
import http2 from "node:http2";
import { after, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { forgetPeak, MOST_MEMORY, memory, peakAbove, printTable, send, target } from "./attacked.mjs";
import { counter, token } from "./xp.mjs";

const PATIENCE = 60_000;
const rows = [["attack", "bytes", "status", "code", "MiB", "ms"]];
after(() => printTable(rows));

/** Runs an attack, and holds how far the memory rises. */
async function attack(name, bytes, run, most = MOST_MEMORY) {
  await forgetPeak();
  const [idle, started] = [await memory("VmRSS"), performance.now()];
  const [status, code] = await run();
  const risen = await peakAbove(idle);
  rows.push([name, bytes, status, code, risen.toFixed(1), (performance.now() - started).toFixed(0)]);
  assert.ok(risen < most, `${risen.toFixed(1)} MiB`);
  assert.equal((await send({ method: "GET", path: "/livez" })).status, 200);
}

/** A socket, what it has heard, and whether it is closed. */
function open() {
  const socket = connect(Number(target.port), target.hostname);
  const state = { socket, heard: "", closed: false };
  socket.on("data", (part) => (state.heard += part));
  socket.on("error", () => {});
  socket.on("close", () => (state.closed = true));
  return state;
}

/** Sends a part every half second until the server has closed. */
async function drip(start, part) {
  const state = open();
  state.socket.write(start);
  for (const until = performance.now() + PATIENCE; !state.closed; ) {
    assert.ok(performance.now() < until, "still open");
    state.socket.write(part);
    await wait(500);
  }
  return state.heard;
}

async function expectCut(reason, atLeast, before) {
  for (const until = performance.now() + PATIENCE; (await cut(reason)) < before + atLeast; ) {
    assert.ok(performance.now() < until, `${await cut(reason)} connections are cut for ${reason}`);
    await wait(200);
  }
}
const cut = (reason) => counter("http_server_connections_cut_total", `reason="${reason}"`);

const HEAD = "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";

test("bodies that come a byte at a time are given up", () =>
  attack("256 bodies, a byte at a time", 40, async () => {
    const answers = await Promise.all(Array.from({ length: 256 }, () => drip(HEAD, "{")));
    assert.ok(answers.every((text) => text.startsWith("HTTP/1.1 408")), answers[0]);
    assert.ok(answers.every((text) => text.includes('"TIMEOUT"')));
    return [408, "TIMEOUT"];
  }));

test("heads that come a byte at a time are cut off", () =>
  attack("256 heads, a byte at a time", 40, async () => {
    const before = await cut("head");
    await Promise.all(Array.from({ length: 256 }, () => drip("POST /graphql HTTP/1.1\r\nx: ", "y")));
    await expectCut("head", 256, before);
    return ["–", "cut: head"];
  }));

test("connections that say nothing are closed", () =>
  attack("256 silent connections", 0, async () => {
    const before = await cut("idle");
    const all = Array.from({ length: 256 }, open);
    await expectCut("idle", 256, before);
    for (const { socket } of all) socket.destroy();
    return ["–", "cut: idle"];
  }));

test("who does not read is cut off", { timeout: 2 * PATIENCE }, () =>
  attack("8 clients that do not read", 92_000, async () => {
    const before = await cut("write");
    const query = encodeURIComponent("{ __schema { types { name description fields { name description args { name description } } } } }");
    const request = `GET /graphql?query=${query} HTTP/1.1\r\nhost: x\r\napollo-require-preflight: 1\r\n\r\n`;
    const all = Array.from({ length: 8 }, open);
    for (const { socket } of all) {
      socket.pause();
      socket.write(request.repeat(400));
    }
    await expectCut("write", 8, before);
    for (const { socket } of all) socket.destroy();
    return ["–", "cut: write"];
  }));

test("bodies that are received are bounded all together", () =>
  attack("512 bodies of 255 KiB that stop before their end", 255 << 10, async () => {
    const head = HEAD.replace("100000", String(256 << 10));
    const all = Array.from({ length: 512 }, open);
    for (const { socket } of all) socket.write(head + "x".repeat(255 << 10));
    for (const until = performance.now() + PATIENCE; all.some(({ closed }) => !closed); ) {
      assert.ok(performance.now() < until, "still open");
      await wait(200);
    }
    const codes = all.map(({ heard }) => heard.slice(9, 12));
    assert.ok(codes.includes("503"), "some are refused at once");
    assert.ok(codes.every((code) => ["503", "408", ""].includes(code)), [...new Set(codes)].join());
    return ["503, 408", "OVERLOADED, TIMEOUT"];
    // What bodies may take together (http.max_body_memory, 64 MiB), in buffers that double; all of these would take 256.
  }, 160));

const SHAPES = {
  "two lengths": "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
  "a length and chunks": "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
  "chunks that are none": "POST /graphql HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
  "chunks twice": "POST /graphql HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
  "a negative length": "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
  "a length without end": `POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: ${"9".repeat(100)}\r\n\r\n`,
  "a signed length": "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: +4\r\n\r\nabcd",
  "a chunk of no size": "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
  "a chunk of endless size": `POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n${"f".repeat(40)}\r\n`,
  "an extension of 1 MiB": `POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1;${"a".repeat(1 << 20)}\r\n`,
  "trailers of 1 MiB": `POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n0\r\n${"a: b\r\n".repeat(170_000)}\r\n`,
  "a folded header": "GET /livez HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
  "a header without a colon": "GET /livez HTTP/1.1\r\nhost: x\r\nabc\r\n\r\n",
  "a blank before the colon": "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length : 4\r\n\r\nabcd",
  "a NUL in a header": "GET /livez HTTP/1.1\r\nhost: x\r\na: \u0000\r\n\r\n",
  "100 headers": `GET /livez HTTP/1.1\r\nhost: x\r\n${"a: b\r\n".repeat(100)}\r\n`,
  "100,000 headers": `GET /livez HTTP/1.1\r\nhost: x\r\n${"a: b\r\n".repeat(100_000)}\r\n`,
  "a header of 1 MiB": `GET /livez HTTP/1.1\r\nhost: x\r\na: ${"b".repeat(1 << 20)}\r\n\r\n`,
  "a path of 1 MiB": `GET /${"a".repeat(1 << 20)} HTTP/1.1\r\nhost: x\r\n\r\n`,
  "a method of 1 MiB": `${"A".repeat(1 << 20)} / HTTP/1.1\r\nhost: x\r\n\r\n`,
  "HTTP/0.9": "GET /livez\r\n",
  "HTTP/9.9": "GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
  "TLS": "\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001\u00fc\u0003\u0003",
  "zeros": "\u0000".repeat(100_000),
  "line breaks": "\r\n".repeat(100_000),
};

for (const [name, text] of Object.entries(SHAPES)) {
  test(`no HTTP: ${name}`, () =>
    attack(name, text.length, async () => {
      const talk = async () => {
        const state = open();
        state.socket.write(text, "latin1");
        state.socket.end();
        for (const until = performance.now() + PATIENCE; !state.closed; await wait(10)) {
          assert.ok(performance.now() < until, "still open");
        }
        return state.heard;
      };
      const answers = await Promise.all(Array.from({ length: 16 }, talk));
      for (const answer of answers) {
        const codes = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, code]) => Number(code));
        // Closed without a word, or one refusal, after which nothing on the connection is believed.
        assert.ok(codes.length <= 1 && codes.every((code) => code >= 400 && code < 500), answer.slice(0, 300));
      }
      return [answers[0].slice(9, 12) || "–", "–"];
    }));
}

test("streams of HTTP/2 that are opened and reset", () =>
  attack("16 × 2,000 streams opened and reset", 2_000, async () => {
    const one = async () => {
      const client = http2.connect(target.origin);
      client.on("error", () => {});
      let gone = false;
      client.on("close", () => (gone = true));
      for (let opened = 0; opened < 2_000 && !gone && !client.destroyed && !client.closed; opened++) {
        const stream = client.request({ ":method": "POST", ":path": "/graphql", "content-type": "application/json" });
        stream.on("error", () => {});
        stream.close(http2.constants.NGHTTP2_CANCEL);
        if (opened % 50 === 0) await wait(1);
      }
      client.destroy();
    };
    await Promise.all(Array.from({ length: 16 }, one));
    return ["–", "reset"];
  }));

test("heads of HTTP/2 that are too long are refused", () =>
  attack("a head of 64 KiB over HTTP/2", 64 << 10, async () => {
    const client = http2.connect(target.origin);
    client.on("error", () => {});
    const status = await new Promise((resolve) => {
      const stream = client.request({ ":path": "/livez", ...Object.fromEntries(Array.from({ length: 16 }, (_, n) => [`x-${n}`, "a".repeat(4_000)])) });
      stream.on("response", (headers) => resolve(headers[":status"]));
      stream.on("error", () => resolve(0));
      stream.on("close", () => resolve(0));
      stream.end();
    });
    client.destroy();
    assert.ok(status === 431 || status === 0, String(status));
    return [status || "–", "–"];
  }));

test("who was slow has kept nobody else from being served", async () => {
  const body = Buffer.from('{"query":"{ me { id } }"}');
  const { status } = await send({ body, headers: { authorization: `Bearer ${await token()}` } });
  assert.equal(status, 200);
});
