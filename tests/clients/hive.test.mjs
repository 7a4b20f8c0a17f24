// What a server reports to GraphQL Hive, beside what Hive's own client reports of the same operation: both have the same
// keys of the same types, and name the same fields. XP_BINARY is the server's program. Not here: how reports are sent.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { after, before, test } from "node:test";
import { Worker } from "node:worker_threads";
import { freePort, scratch, startProgram } from "../processes.mjs";

const READY_WITHIN = 60_000;
const TOKEN = "0123456789abcdef0123456789abcdef";
const QUERY = `query People($n: Int!, $after: String, $order: UserOrder) {
  a: users(first: $n, after: $after, orderBy: $order, filter: { search: "planted", roles: [ADMIN, MANAGER] }) {
    totalCount
    nodes { __typename ...Person sessions(first: 1) { nodes { id } } }
  }
}
fragment Person on User { role displayName @skip(if: false) }`;

let hive, folder, server, schema, url;
const reports = [];

before(async () => {
  assert.ok(process.env.XP_BINARY, "XP_BINARY is not set: the server's program");
  hive = http.createServer(async (request, response) => {
    const parts = await request.toArray();
    reports.push({ headers: request.headers, body: JSON.parse(Buffer.concat(parts).toString()) });
    response.end("{}");
  });
  await once(hive.listen(0, "127.0.0.1"), "listening");
  folder = scratch("hive");
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const env = {
    PATH: process.env.PATH, HOME: folder, PORT: String(port), RUST_LOG: "warn",
    XP_TELEMETRY_HIVE_ENDPOINT: endpoint(), XP_TELEMETRY_HIVE_TOKEN: TOKEN, XP_TELEMETRY_FIELD_USAGE: "1",
  };
  const isReady = async () => (await fetch(`${url}/readyz`).catch(() => undefined))?.ok ?? false;
  server = await startProgram("the server", [process.env.XP_BINARY, "dev"], { cwd: folder, env, isReady, within: READY_WITHIN });
  schema = await (await fetch(`${url}/schema.graphql`)).text();
});

after(async () => {
  await server?.close();
  hive.close();
});

const endpoint = () => `http://127.0.0.1:${hive.address().port}/usage`;

async function reportOfServer() {
  const { accounts } = await (await fetch(`${url}/playground/config.json`)).json();
  const headers = {
    "content-type": "application/json", authorization: `Bearer ${accounts[0].token}`,
    "graphql-client-name": "web", "graphql-client-version": "1.2",
  };
  const body = JSON.stringify({ query: QUERY, variables: { n: 2 } });
  const answer = await (await fetch(`${url}/graphql`, { method: "POST", headers, body })).json();
  assert.equal(answer.errors, undefined, JSON.stringify(answer));
  await server.close();
  return reports.pop();
}

async function reportOfClient() {
  const workerData = { endpoint: endpoint(), token: TOKEN, schema, query: QUERY };
  const client = new Worker(new URL("hive_client.mjs", import.meta.url), { workerData });
  await once(client, "message");
  await client.terminate();
  return reports.pop();
}

/** The keys and the types of a value; numbers that are whole are told from others. */
const shape = (value) => {
  if (Array.isArray(value)) return [...new Set(value.map((item) => JSON.stringify(shape(item))))];
  if (value === null || typeof value !== "object") return Number.isInteger(value) ? "integer" : typeof value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, shape(value[key])]));
};

test("a server reports as Hive's client does", async () => {
  const ours = await reportOfServer();
  const theirs = await reportOfClient();
  for (const name of ["authorization", "content-type", "x-usage-api-version"]) {
    assert.equal(ours.headers[name], theirs.headers[name]);
  }
  const single = ({ body }) => ({ ...body, map: Object.values(body.map) });
  assert.deepEqual(shape(single(ours)), shape(single(theirs)));
  const [[our], [their]] = [Object.values(ours.body.map), Object.values(theirs.body.map)];
  assert.deepEqual(our.fields.toSorted(), their.fields.toSorted());
  assert.equal(our.operationName, their.operationName);
  assert.equal(JSON.stringify(ours.body).includes("planted"), false);
});
