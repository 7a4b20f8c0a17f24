// Requests made to bring a server down: each is sent by 16 senders at once, is refused with its code (or answered), and
// leaves the server alive and small. The server runs under a bound on its memory. Prints a table: bytes sent, status,
// code, how far its memory rose at most, the slowest answer. Not here: what a single document may hold (tests/it).
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import http from "node:http";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { endpoint, token } from "./xp.mjs";

const SENDERS = 16;
const ROUNDS = 4;
const MOST_MEMORY = 64; // MiB above what it was before
const MOST_ANSWER = 8 << 10;

const pid = process.env.XP_PID;
assert.ok(pid, "XP_PID is not set: the process that is attacked");
const target = new URL(endpoint);

let bearer;
const rows = [];
before(async () => {
  bearer = `Bearer ${await token()}`;
});
after(() => {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  for (const row of rows) console.log(row.map((cell, column) => String(cell).padEnd(widths[column])).join("  "));
});
rows.push(["attack", "bytes", "status", "code", "MiB", "slowest ms"]);

/** Resident memory in MiB: now, or the highest since `forgetPeak`. */
async function memory(name) {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(status.match(new RegExp(`${name}:\\s+(\\d+)`))[1]) / 1024;
}
const forgetPeak = () => writeFile(`/proc/${pid}/clear_refs`, "5");

function send({ method = "POST", path = "/graphql", headers = {}, body }) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host: target.hostname, port: target.port, method, path, agent: false, timeout: 30_000,
        headers: { "content-type": "application/json", ...(body && { "content-length": body.length }), ...headers } },
      async (response) => {
        let text = "";
        for await (const part of response) text += part;
        resolve({ status: response.statusCode, text });
      },
    );
    // A body that is too long is refused while it is still being sent.
    let refused;
    request.on("error", (error) => (refused = error, setTimeout(() => reject(error), 100)));
    request.end(body);
  });
}

const json = (value) => Buffer.from(JSON.stringify(value));
const query = (text, variables) => json({ query: text, variables });
const nested = (open, close, levels) => `${open.repeat(levels)}1${close.repeat(levels)}`;
const raw = (text) => Buffer.from(text);
const inQuery = (value) => query(`{ users(filter: ${value}) { totalCount } }`);
const inVariables = (value) => raw(`{"query":"query($x: UserFilter) { users(filter: $x) { totalCount } }","variables":{"x":${value}}}`);
const many = (count, text) => Array.from({ length: count }, (_, n) => text(n)).join(" ");
const gzip = (body) => ({ body, headers: { "content-encoding": "gzip" } });
const zeros = Buffer.alloc(64 << 20, 32);
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
let number = 0;

// Name, what is sent (signed in unless it says otherwise), codes that it may be refused with.
const attacks = [
  ["64 MiB of blanks in 64 KiB of gzip", gzip(gzipSync(zeros)), "PAYLOAD_TOO_LARGE"],
  ["the same, compressed twice", gzip(gzipSync(gzipSync(zeros))), "BAD_USER_INPUT"],
  ["the same in brotli", { body: brotliCompressSync(zeros), headers: { "content-encoding": "br" } }, "BAD_USER_INPUT"],
  ["gzip that breaks off", gzip(gzipSync(zeros).subarray(0, 5000)), "PAYLOAD_TOO_LARGE BAD_USER_INPUT"],
  ["1 MiB of lists in variables", { body: inVariables(nested("[", "]", 1 << 19)) }, "DEPTH_LIMIT"],
  ["1 MiB of objects in variables", { body: inVariables(nested('{"a":', "}", 170_000)) }, "DEPTH_LIMIT"],
  ["1 MiB of brackets without an end", { body: raw(`{"variables":${"[".repeat(1 << 20)}`) }, "DEPTH_LIMIT"],
  ["1 MiB of values in variables", { body: inVariables(`[${"1,".repeat(1 << 19)}1]`) }, "COST_LIMIT"],
  ["99,000 values in variables", { body: inVariables(`[${"1,".repeat(99_000)}1]`) }, "BAD_USER_INPUT"],
  ["1 MiB of text in variables", { body: inVariables(`{"search":"${"x".repeat(1 << 20)}"}`) }, "BAD_USER_INPUT"],
  ["1 MiB of keys in variables", { body: inVariables(`{${many(40_000, (n) => `"k${n}":1,`)}"z":1}`) }, "BAD_USER_INPUT"],
  ["the same, anonymous", { body: inVariables(nested("[", "]", 1 << 19)), anonymous: true }, "PAYLOAD_TOO_LARGE"],
  ["1 MiB of lists in the query", { body: inQuery(nested("[", "]", 1 << 19)) }, "PAYLOAD_TOO_LARGE"],
  ["64 KB of lists in the query", { body: inQuery(nested("[", "]", 32_000)) }, "DEPTH_LIMIT"],
  ["64 KB of objects in the query", { body: inQuery(nested("{a:", "}", 16_000)) }, "DEPTH_LIMIT"],
  ["64 KB of selections in each other", { body: query(`${"{a".repeat(16_000)}${"}".repeat(16_000)}`) }, "DEPTH_LIMIT"],
  ["100,000 aliases", { body: query(`{ ${many(100_000, (n) => `a${n}: __typename`)} }`) }, "PAYLOAD_TOO_LARGE"],
  ["3,000 aliases", { body: query(`{ ${many(3_000, (n) => `a${n}: __typename`)} }`) }, "COST_LIMIT"],
  ["100,000 directives", { body: query(`{ __typename ${"@a ".repeat(100_000)} }`) }, "PAYLOAD_TOO_LARGE"],
  ["20,000 directives", { body: query(`{ __typename ${"@a ".repeat(20_000)} }`) }, "COST_LIMIT"],
  ["100,000 fragments", { body: query(`{ ...F0 } ${many(100_000, (n) => `fragment F${n} on Query{a}`)}`) }, "PAYLOAD_TOO_LARGE"],
  ["2,000 fragments", { body: query(`{ ...F0 } ${many(2_000, (n) => `fragment F${n} on Query{a}`)}`) }, "COST_LIMIT"],
  ["fragments that double 40 times", { body: query(`{ ...F0 } ${many(40, (n) => `fragment F${n} on Query { ...F${n + 1} ...F${n + 1} }`)} fragment F40 on Query { __typename }`) }, "COST_LIMIT"],
  ["fragments in a circle", { body: query("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }") }, "GRAPHQL_VALIDATION_FAILED"],
  ["fragments 49 deep", { body: query(`{ ...F0 } ${many(49, (n) => `fragment F${n} on Query { ...F${n + 1} }`)} fragment F49 on Query { __typename }`) }, "ok"],
  ["pages in pages", { body: query("{ users(first: 100) { nodes { sessions(first: 100) { nodes { user { forms(first: 100) { nodes { id } } } } } } } }") }, "COST_LIMIT"],
  ["a page of variables", { body: query("query($n: Int) { users(first: $n) { nodes { sessions(first: $n) { nodes { locations(first: $n) { nodes { id } } } } } } }", { n: 100 }) }, "COST_LIMIT"],
  ["a block string without an end", { body: query(`{ a(b: """${'\\"""'.repeat(12_000)}`) }, "GRAPHQL_PARSE_FAILED"],
  ["introspection in depth", { body: query(`{ __schema { types ${"{ fields { type ".repeat(9)} { name } ${"} }".repeat(9)} } }`) }, "DEPTH_LIMIT GRAPHQL_PARSE_FAILED"],
  ["a name of 60,000 letters", { body: query(`{ ${"a".repeat(60_000)} }`) }, "GRAPHQL_VALIDATION_FAILED"],
  ["2,000 unknown fields", { body: query(`{ me { ${many(900, (n) => `x${n}`)} } }`) }, "GRAPHQL_VALIDATION_FAILED"],
  ["an operation's name of 1 MiB", { body: json({ query: "{ __typename }", operationName: "a".repeat(1 << 20) }) }, "OPERATION_RESOLUTION_FAILURE"],
  ["lone surrogates", { body: raw('{"query":"{ userBy(lookup: { email: \\"\\ud800\\" }) { id } }"}') }, "BAD_USER_INPUT"],
  ["NUL, BOM and marks", { body: query('{ userBy(lookup: { email: "\u0000\uFEFF\u202E\u{10FFFF}" }) { id } }') }, "GRAPHQL_PARSE_FAILED ok"],
  ["bytes that are no UTF-8", { body: Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]) }, "BAD_USER_INPUT"],
  ["numbers without end", { body: inVariables(`{"roles":[${"9".repeat(500_000)}]}`) }, "BAD_USER_INPUT"],
  ["exponents", { body: query("query { users(first: 1e999999999) { totalCount } }") }, "GRAPHQL_VALIDATION_FAILED GRAPHQL_PARSE_FAILED BAD_USER_INPUT"],
  ["integers that do not fit", { body: query("{ users(first: 99999999999999999999999) { totalCount } }") }, "GRAPHQL_VALIDATION_FAILED BAD_USER_INPUT GRAPHQL_PARSE_FAILED COST_LIMIT"],
  ["an array of 1,000 requests", { body: raw(`[${'{"query":"{__typename}"},'.repeat(999)}{"query":"{__typename}"}]`) }, "BAD_USER_INPUT"],
  ["100,000 keys of a request", { body: raw(`{${many(50_000, (n) => `"k${n}":1,`)}"query":"{__typename}"}`) }, "ok"],
  ["new documents without end", { body: () => query(`query A${number++} { me { ${many(150, (n) => "id displayName role email")} } }`) }, "ok"],
  ["registered documents without end", { body: () => {
    const text = `query R${number++} { me { ${many(150, (n) => "id displayName role email")} } }`;
    return json({ query: text, extensions: { persistedQuery: { version: 1, sha256Hash: sha256(text) } } });
  } }, "ok"],
  ["hashes without end", { body: () => json({ extensions: { persistedQuery: { version: 1, sha256Hash: sha256(String(number++)) } } }) }, "PERSISTED_QUERY_NOT_FOUND"],
  ["a query string of 12 KB", { method: "GET", path: `/graphql?query=${"%7Ba".repeat(3_000)}`, headers: { "apollo-require-preflight": "1" } }, "DEPTH_LIMIT"],
  ["the schema, by all at once", { body: query("{ _service { sdl } __schema { types { name description fields { name description type { name ofType { name } } args { name description } } } } }") }, "ok"],
];

for (const [name, attack, codes] of attacks) {
  test(name, async () => {
    await forgetPeak();
    const idle = await memory("VmRSS");
    let [slowest, bytes, seen] = [0, 0, new Set()];
    const sender = async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const body = typeof attack.body === "function" ? attack.body() : attack.body;
        const headers = { ...(!attack.anonymous && { authorization: bearer }), ...attack.headers };
        const started = performance.now();
        // The server may close the connection as soon as it has seen too much: that is a refusal too.
        const { status, text } = await send({ ...attack, headers, body }).catch(() => ({ status: 413, text: "" }));
        slowest = Math.max(slowest, performance.now() - started);
        bytes = body?.length ?? attack.path.length;
        const answer = text ? JSON.parse(text) : { errors: [{ extensions: { code: "PAYLOAD_TOO_LARGE" } }] };
        const code = answer.errors?.[0].extensions.code ?? "ok";
        if (code !== "ok") assert.ok(text.length <= MOST_ANSWER, `${text.length} bytes: ${text.slice(0, 200)}`);
        seen.add(`${status} ${code}`);
        assert.ok(codes.split(" ").includes(code), `${status} ${text.slice(0, 300)}`);
      }
    };
    await Promise.all(Array.from({ length: SENDERS }, sender));
    const risen = (await memory("VmHWM")) - idle;
    const [status, code] = [...seen][0].split(" ");
    rows.push([name, bytes, status, code, risen.toFixed(1), slowest.toFixed(0)]);
    assert.ok(risen < MOST_MEMORY, `${risen.toFixed(1)} MiB`);
    assert.equal((await send({ method: "GET", path: "/livez" })).status, 200);
  });
}

test("slow senders are cut off and cost nothing", async () => {
  await forgetPeak();
  const idle = await memory("VmRSS");
  const started = performance.now();
  const slow = async () => {
    const socket = connect(Number(target.port), target.hostname);
    let text = "";
    socket.on("data", (part) => (text += part));
    socket.on("error", () => {});
    let closed = false;
    socket.on("close", () => (closed = true));
    socket.write("POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n");
    while (!closed && performance.now() - started < 25_000) {
      socket.write("{");
      await wait(500);
    }
    assert.ok(closed, "still open");
    return text;
  };
  const answers = await Promise.all(Array.from({ length: 256 }, slow));
  assert.ok(answers.every((text) => text.startsWith("HTTP/1.1 408")), answers[0]);
  const risen = (await memory("VmHWM")) - idle;
  rows.push(["256 senders of a byte at a time", 40, 408, "TIMEOUT", risen.toFixed(1), (performance.now() - started).toFixed(0)]);
  assert.ok(risen < MOST_MEMORY, `${risen.toFixed(1)} MiB`);
});
