// HTTP/2 without TLS, as gateways and proxies in the same network speak it: many requests on one connection, each answered
// as over HTTP/1.1. Not here: attacks on it (slow.test.mjs).
import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import { after, before, test } from "node:test";
import { brotliDecompressSync } from "node:zlib";
import { endpoint, token } from "./xp.mjs";

const STREAMS = 100;
let client, authorization;

before(async () => {
  authorization = `Bearer ${await token()}`;
  client = http2.connect(new URL(endpoint).origin);
  await once(client, "remoteSettings");
});
after(() => client.close());

async function ask(headers, body) {
  const stream = client.request({ ":path": "/graphql", ...headers });
  stream.end(body);
  const [answered] = await once(stream, "response");
  const parts = [];
  for await (const part of stream) parts.push(part);
  return { status: answered[":status"], headers: answered, body: Buffer.concat(parts) };
}

const post = (query, headers = {}) =>
  ask({ ":method": "POST", "content-type": "application/json", authorization, ...headers }, JSON.stringify({ query }));

test("many requests share a connection", async () => {
  assert.equal(client.remoteSettings.maxConcurrentStreams, STREAMS);
  const asked = Array.from({ length: 300 }, (_, n) => post(`{ a${n}: users(first: 1) { nodes { id } } }`));
  for (const [n, { status, body }] of (await Promise.all(asked)).entries()) {
    assert.equal(status, 200);
    assert.equal(JSON.parse(body).data[`a${n}`].nodes.length, 1);
  }
});

test("an answer is compressed, tagged and not sent again", async () => {
  const path = `/graphql?query=${encodeURIComponent("{ __schema { types { name description } } }")}`;
  const headers = { ":path": path, "apollo-require-preflight": "1", "accept-encoding": "br" };
  const first = await ask(headers);
  assert.equal(first.headers["content-encoding"], "br");
  assert.ok(JSON.parse(brotliDecompressSync(first.body)).data.__schema.types.length > 20);
  const again = await ask({ ...headers, "if-none-match": first.headers.etag });
  assert.deepEqual([again.status, again.body.length], [304, 0]);
});

test("answers as streams are whole, and end", async () => {
  const mutation = "mutation { updateProfile(input: {}) { userErrors { code } } }";
  for (let times = 0; times < 5; times++) {
    for (const query of ["{ __typename }", mutation]) {
      const sse = await post(query, { accept: "text/event-stream" });
      assert.match(String(sse.body), /event: next\ndata: \{"data":.*\n\nevent: complete\n/s);
      const multipart = await post(query, { accept: 'multipart/mixed;subscriptionSpec="1.0"' });
      assert.match(String(multipart.body), /"payload":\{"data":.*\r\n--graphql--\r\n$/s);
    }
  }
});

test("what is refused is refused with its code", async () => {
  const mutation = { ":path": "/graphql?query=mutation%7B__typename%7D", "apollo-require-preflight": "1" };
  for (const [asked, expected, code] of [
    [post("{"), 200, "GRAPHQL_PARSE_FAILED"],
    [post("{ nothing }", { accept: "application/graphql-response+json" }), 400, "GRAPHQL_VALIDATION_FAILED"],
    [post("{ me { id } }", { authorization: "Bearer x" }), 401, "UNAUTHENTICATED"],
    [post("x".repeat(3 << 20)), 413, "PAYLOAD_TOO_LARGE"],
    [ask(mutation), 405, "BAD_USER_INPUT"],
  ]) {
    const { status, body } = await asked;
    assert.deepEqual([status, JSON.parse(body).errors[0].extensions.code], [expected, code]);
  }
});
