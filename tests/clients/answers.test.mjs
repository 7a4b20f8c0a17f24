// Answers that are made to be long: a few kilobytes ask for the same documents again and again, with and without
// compression, and for tracks of many points. The server stays small, stops each of them, and serves others meanwhile.
// Prints a table: bytes sent, memory above idle, how long others wait, what became of the attackers. Not here: how that is
// measured (pressure.mjs), clients that do not take their answers (pressure.test.mjs).
import assert from "node:assert/strict";
import http from "node:http";
import { after, before, suite, test } from "node:test";
import { getIntrospectionQuery } from "graphql";
import { target } from "./attacked.mjs";
import { ATTACKERS, printPressure, underPressure } from "./pressure.mjs";
import { token } from "./xp.mjs";

const ROUNDS = 3;
const MOST_ANSWER = 16 << 20;
const ROOTS = 20;
const IDS = 100;

let bearer;
/** Ids of published versions: one of the demo data, and one whose definition has 490 KB. */
const versions = {};

before(async () => {
  bearer = `Bearer ${await token()}`;
  const { data } = await ask({ query: "{ forms(first: 100, filter: { statuses: OPEN }) { nodes { currentVersion { id definition } } } }" });
  const published = data.forms.nodes.map((form) => form.currentVersion).filter(Boolean);
  published.sort((one, other) => JSON.stringify(other.definition).length - JSON.stringify(one.definition).length);
  versions.demo = published[0].id;
  versions.large = await publish(definitionOf(490_000));
});
after(printPressure);

/** A definition of so many bytes: fields with long labels. */
function definitionOf(bytes) {
  const field = (number) => ({ key: `f${number}`, type: "TEXT", label: "What was seen there? ".repeat(45) });
  const fields = Array.from({ length: Math.floor(bytes / JSON.stringify(field(100)).length) }, (_, number) => field(number));
  return { schema: 1, fields };
}

async function publish(definition) {
  const create = "mutation($definition: JSON!) { createForm(input: { title: \"Long\", definition: $definition }) { form { id draftRevision } userErrors { message path } } }";
  const created = (await ask({ query: create, variables: { definition } })).data.createForm;
  assert.deepEqual(created.userErrors, []);
  const publish = "mutation($id: ID!, $baseRevision: Int!) { publishForm(input: { id: $id, baseRevision: $baseRevision }) { form { currentVersion { id } } userErrors { message path } } }";
  const published = (await ask({ query: publish, variables: { id: created.form.id, baseRevision: created.form.draftRevision } })).data.publishForm;
  assert.deepEqual(published.userErrors, []);
  return published.form.currentVersion.id;
}

/** Sends a request and reads the answer as it comes, without keeping it: its bytes, its beginning, how long it took. */
function send(body, coding) {
  const bytes = Buffer.from(JSON.stringify(body));
  const headers = { "content-type": "application/json", "content-length": bytes.length, authorization: bearer, "accept-encoding": coding };
  return new Promise((resolve, reject) => {
    const request = http.request({ host: target.hostname, port: target.port, path: "/graphql", method: "POST", agent: false, headers, timeout: 60_000 }, (response) => {
      let length = 0;
      const parts = [];
      response.on("data", (part) => {
        length += part.length;
        if (length < 16 << 10) parts.push(part);
      });
      response.on("end", () => resolve({ status: response.statusCode, length, coding: response.headers["content-encoding"], start: Buffer.concat(parts).toString() }));
      response.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", reject);
    request.end(bytes);
  });
}

async function ask(body) {
  const response = await fetch(new URL("/graphql", target), { method: "POST", headers: { "content-type": "application/json", authorization: bearer }, body: JSON.stringify(body) });
  return response.json();
}

/** `nodes` under 20 names, each with one id 100 times. */
function bomb(id, fields, roots = ROOTS) {
  const aliases = Array.from({ length: roots }, (_, number) => `a${number}: nodes(ids: $ids) { ... on FormVersion { ${fields} } }`);
  return { query: `query($ids: [ID!]!) { ${aliases.join(" ")} }`, variables: { ids: Array(IDS).fill(id) } };
}

/** 16 at a time, again and again: each is answered within the bound, or stopped with a code. */
async function attack(body, coding, allowed) {
  const seen = new Map();
  let longest = 0;
  const attacker = async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const { status, length, start } = await send(body, coding);
      const code = start.match(/"code":"([A-Z_]+)"/)?.[1] ?? "ok";
      seen.set(code, (seen.get(code) ?? 0) + 1);
      longest = Math.max(longest, length);
      assert.ok(status === 200 || ["OVERLOADED", "TIMEOUT", "COST_LIMIT"].includes(code), `${status} ${start.slice(0, 200)}`);
    }
  };
  await Promise.all(Array.from({ length: ATTACKERS }, attacker));
  assert.ok(longest <= MOST_ANSWER, `${longest} bytes`);
  for (const code of seen.keys()) assert.ok(allowed.includes(code), `${code} is none of ${allowed}`);
  const verdict = [...seen].map(([code, count]) => `${code}: ${count}`).sort().join(", ");
  return { sent: ATTACKERS * ROUNDS * JSON.stringify(body).length, verdict };
}

suite("long answers", () => {
  const rows = [
    ["a small document", "demo", "definition", 4],
    ["a small document, many times in each", "demo", "a: definition b: definition c: jsonSchema d: jsonSchema", 2],
    ["a document of 490 KB", "large", "definition", 4],
    ["a document of 490 KB, many times in each", "large", "a: definition b: definition c: definition d: jsonSchema", 2],
    ["too many documents", "large", "a: definition b: definition c: definition", 20],
  ];
  for (const [name, version, fields, roots] of rows) {
    for (const coding of ["identity", "br", "gzip", "zstd"]) {
      const allowed = ["ok", "COST_LIMIT", "OVERLOADED", "TIMEOUT"];
      test(`${name}, ${coding}`, { timeout: 300_000 }, () =>
        underPressure(`${name} × ${roots * IDS}, ${coding}, ${ATTACKERS} at once`, () => attack(bomb(versions[version], fields, roots), coding, allowed)));
    }
  }
});

suite("questions about the schema", () => {
  const text = (names) => {
    const asked = Array.from({ length: names }, (_, number) => `a${number}: __schema { ...S }`);
    return `{ ${asked.join(" ")} } ${getIntrospectionQuery().replace(/^\s*query \w+ \{\s*__schema/, "fragment S on __Schema").replace(/\}\s*\}\s*fragment FullType/, "} fragment FullType")}`;
  };
  for (const coding of ["identity", "br"]) {
    test(`the whole schema 20 times in each, ${coding}`, { timeout: 300_000 }, () =>
      underPressure(`the whole schema × 20, ${coding}, ${ATTACKERS} at once`, () => attack({ query: text(20) }, coding, ["ok", "OVERLOADED", "TIMEOUT"])));
  }
});

test("one such answer is stopped, and says so", async () => {
  const { data, errors } = await ask(bomb(versions.large, "definition", 4));
  assert.deepEqual([data, errors.map((error) => error.extensions.code)], [null, ["COST_LIMIT"]]);
  const dear = await ask(bomb(versions.large, "definition", 20));
  assert.deepEqual([dear.data, dear.errors[0].extensions.code], [undefined, "COST_LIMIT"]);
});

suite("tracks", () => {
  before(async () => {
    const record = "mutation($points: [LocationPointInput!]!) { recordLocations(input: { points: $points }) { acceptedCount } }";
    for (let call = 0; call < 20; call++) {
      const points = Array.from({ length: 1_000 }, (_, number) => {
        const second = call * 1_000 + number;
        const timestamp = new Date(Date.now() - 3_600_000 - second * 1_000).toISOString();
        return { timestamp, latitude: 10 + Math.sin(second / 500), longitude: 20 + second / 100_000 };
      });
      const { data, errors } = await ask({ query: record, variables: { points } });
      assert.ok(data?.recordLocations, JSON.stringify(errors));
    }
  });
  test("many stretches of one track", { timeout: 300_000 }, () => {
    const from = (days) => new Date(Date.now() - days * 86_400_000).toISOString();
    const tracks = Array.from({ length: 5 }, (_, number) => `a${number}: track(range: { from: "${from(400 + number)}" }, maxPoints: ${2 + number}) { id }`);
    return underPressure(`5 tracks of 20,000 points, ${ATTACKERS} at once`, () =>
      attack({ query: `{ me { ${tracks.join(" ")} } }` }, "identity", ["ok", "TIMEOUT", "BAD_USER_INPUT", "OVERLOADED"]));
  });
});
