// A real nginx with the shipped configuration before the running server. Between them stands a relay that counts what
// comes through, can be slow, and makes every age a few seconds, so that nobody waits a minute for an answer to run out.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile, readdir } from "node:fs/promises";
import http from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { startNginx } from "./proxy.mjs";
import { endpoint, token } from "./xp.mjs";

const AGE_SECONDS = 4;
const upstream = new URL(endpoint);
const schema = "{ __schema { queryType { name fields { name description } } } }";

let folder, nginx, relay, site, bearer;
const passed = { count: 0, delay: 0 };

before(async () => {
  bearer = await token();
  relay = http.createServer(async (asked, answer) => {
    passed.count++;
    await wait(passed.delay);
    const { method, url: path, headers } = asked;
    const onward = http.request({ host: upstream.hostname, port: upstream.port, method, path, headers }, (response) => {
      const control = response.headers["cache-control"]?.replace(/max-age=\d+/, `max-age=${AGE_SECONDS}`);
      answer.writeHead(response.statusCode, { ...response.headers, ...(control && { "cache-control": control }) });
      response.pipe(answer);
    });
    asked.pipe(onward);
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  nginx = await startNginx([relay.address().port]);
  ({ site, folder } = nginx);
});

after(async () => {
  await nginx?.stop();
  relay?.close();
  relay?.closeAllConnections();
});

function ask(query, headers = {}, variables = {}) {
  return fetchFrom(`/graphql?${new URLSearchParams({ query, variables: JSON.stringify(variables) })}`, headers);
}

async function fetchFrom(path, headers = {}) {
  const response = await fetch(site + path, { headers: { "apollo-require-preflight": "1", ...headers } });
  return { status: response.status, cache: response.headers.get("x-cache"), headers: response.headers, text: await response.text() };
}

const signedIn = () => ({ authorization: `Bearer ${bearer}` });

/** A query that nobody has asked before. */
const fresh = (query) => `query Q${process.hrtime.bigint()} ${query}`;

test("what everybody may see is kept, and each answer has its own request's id", async () => {
  const query = fresh(schema);
  const first = await ask(query);
  assert.deepEqual([first.status, first.cache], [200, "MISS"]);
  const count = passed.count;
  const second = await ask(query);
  assert.deepEqual([second.cache, second.text, passed.count], ["HIT", first.text, count]);
  assert.notEqual(second.headers.get("x-request-id"), first.headers.get("x-request-id"));
});

test("each media type and coding is kept for itself", async () => {
  const query = fresh(schema);
  for (const headers of [
    { accept: "application/json", "accept-encoding": "identity" },
    { accept: "application/graphql-response+json", "accept-encoding": "identity" },
    { accept: "application/json", "accept-encoding": "gzip" },
    { accept: "application/json", "accept-encoding": "br" },
  ]) {
    const [first, second] = [await ask(query, headers), await ask(query, headers)];
    assert.deepEqual([first.cache, second.cache], ["MISS", "HIT"], JSON.stringify(headers));
    assert.ok(second.headers.get("content-type").startsWith(headers.accept));
    assert.equal(second.headers.get("content-encoding") ?? "identity", headers["accept-encoding"]);
    assert.equal(second.text, first.text);
  }
});

test("a page gets no answer that was kept for a page of another origin", async () => {
  const query = fresh(schema);
  const origins = [undefined, "http://localhost:3000", "http://localhost:3001", "https://evil.example"];
  const allowed = (origin) => (origin?.startsWith("http://localhost") ? origin : null);
  for (const round of ["MISS", "HIT"]) {
    for (const origin of origins) {
      const { cache, headers } = await ask(query, { "accept-encoding": "identity", ...(origin && { origin }) });
      assert.deepEqual([cache, headers.get("access-control-allow-origin")], [round, allowed(origin)], `${origin}`);
    }
  }
});

test("a document is kept under its id: in the path, as documentId, and by Apollo's protocol", async () => {
  const query = fresh(schema);
  const hash = createHash("sha256").update(query).digest("hex");
  const extensions = JSON.stringify({ persistedQuery: { version: 1, sha256Hash: hash } });
  const unknown = await fetchFrom(`/graphql?${new URLSearchParams({ extensions })}`);
  assert.deepEqual([unknown.status, JSON.parse(unknown.text).errors[0].extensions.code], [200, "PERSISTED_QUERY_NOT_FOUND"]);
  const headers = { "content-type": "application/json" };
  const registered = await fetch(`${site}/graphql`, { method: "POST", headers, body: JSON.stringify({ query, extensions: JSON.parse(extensions) }) });
  assert.equal(registered.status, 200);
  for (const path of [`/graphql/${hash}`, `/graphql?documentId=${hash}`, `/graphql?${new URLSearchParams({ extensions })}`]) {
    const [first, second] = [await fetchFrom(path), await fetchFrom(path)];
    assert.deepEqual([first.status, first.cache, second.cache, second.text], [200, "MISS", "HIT", first.text], path);
  }
});

test("a tag is answered from the cache", async () => {
  const query = fresh(schema);
  const tag = (await ask(query)).headers.get("etag");
  const count = passed.count;
  const known = await ask(query, { "if-none-match": tag });
  assert.deepEqual([known.status, passed.count], [304, count]);
});

test("nothing that depends on who asks is ever kept", async () => {
  const before = await files();
  const queries = [
    "{ me { id email } }",
    "{ users(first: 5) { nodes { id email } } }",
    "{ __schema { queryType { name } } me { email } }",
    "{ me { email } _service { sdl } }",
    "{ currentSession { id } }",
    "{ nothing }",
    "{ node(id: \"0190a0b0-0000-7000-8000-000000000000\") { ... on FormVersion { id } } }",
  ];
  for (const query of queries.map(fresh)) {
    for (const headers of [signedIn(), signedIn(), {}, {}]) {
      const { cache, headers: answered } = await ask(query, headers);
      assert.notEqual(cache, "HIT", query);
      assert.ok(!answered.get("cache-control").includes("public"), query);
    }
  }
  assert.deepEqual(await files(), before);
  for (const file of before) assert.ok(!(await readFile(file, "latin1")).includes('"email"'), file);
});

async function files() {
  const entries = await readdir(join(folder, "cache"), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name)).sort();
}

test("who is signed in gets the same public answer; a mutation is kept from GET", async () => {
  const query = fresh(schema);
  await ask(query);
  assert.equal((await ask(query, signedIn())).cache, "HIT");
  const mutation = await ask(fresh("mutation { __typename }").replace(/^query \S+ /, ""));
  assert.deepEqual([mutation.status, mutation.cache], [405, "MISS"]);
});

test("a QUERY is passed on, and never kept", async () => {
  for (const name of ["a", "b", "a"]) {
    const answer = await fetch(`${site}/graphql`, {
      method: "QUERY",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ query: `{ ${name}: __typename __schema { queryType { name } } }` }),
    });
    assert.ok(answer.headers.get("cache-control").includes("public"));
    assert.notEqual(answer.headers.get("x-cache"), "HIT");
    assert.equal((await answer.json()).data[name], "Query");
  }
});

test("many who ask at once cost one request", async () => {
  const query = fresh(schema);
  const count = passed.count;
  passed.delay = 200;
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(query)));
  passed.delay = 0;
  assert.equal(passed.count, count + 1);
  assert.ok(answers.every(({ text }) => text === answers[0].text));
});

test("an answer that has run out is given while a new one is asked for", async () => {
  const query = fresh(schema);
  const first = await ask(query);
  await wait(AGE_SECONDS * 1000 + 1500);
  passed.delay = 1000;
  const count = passed.count;
  const stale = await ask(query);
  assert.deepEqual([stale.cache, stale.text], ["STALE", first.text]);
  passed.delay = 0;
  for (let attempt = 0; (await ask(query)).cache !== "HIT"; attempt++) {
    assert.ok(attempt < 50, "the new answer has not come");
    await wait(100);
  }
  assert.ok(passed.count > count, "it was asked for");
});

test("an answer is given while the server is away", async () => {
  const query = fresh(schema);
  const first = await ask(query);
  await wait(AGE_SECONDS * 1000 + 1500);
  const { port } = relay.address();
  relay.close();
  relay.closeAllConnections();
  const stale = await ask(query);
  assert.equal(stale.text, first.text);
  relay.listen(port, "127.0.0.1");
  await once(relay, "listening");
});

test("what is for the operator is not passed on", async () => {
  // In development the server itself has it on its main port.
  assert.equal((await fetch(new URL("/metrics", `http://127.0.0.1:${relay.address().port}`))).status, 200);
  const { request } = await import("node:http");
  for (const path of ["/metrics", "//metrics", "/x/../metrics", "/%6detrics", "/metrics?a=1"]) {
    // `fetch` would tidy the path up.
    const asked = request({ host: "127.0.0.1", port: new URL(site).port, path }).end();
    const [response] = await once(asked, "response");
    response.resume();
    assert.equal(response.statusCode, 403, path);
  }
});
