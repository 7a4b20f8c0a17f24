// The trace that Apollo's gateways ask for, decoded with Apollo's own package.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import protobuf from "@apollo/usage-reporting-protobuf";

import { start } from "./xp.mjs";

let xp;
before(async () => (xp = await start()));
after(async () => assert.equal(await xp.stop(), 0));

async function ask(token, query, headers = {}) {
  const response = await fetch(xp.url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, ...headers },
    body: JSON.stringify({ query }),
  });
  return response.json();
}

const TRACED = { "apollo-federation-include-trace": "ftv1" };

/** `name: type` of a node and what is beneath it, items of lists as one. */
function shape(node) {
  const fields = node.child.flatMap((child) => (child.responseName ? [child] : child.child));
  return Object.fromEntries(fields.map((field) => [`${field.responseName}: ${field.type}`, shape(field)]));
}

test("Apollo's package reads it", async () => {
  const { token } = await xp.signIn("ADMIN");
  const { data, extensions } = await ask(token, "{ __typename who: me { id } users(first: 2) { nodes { displayName } } }", TRACED);
  assert.equal(data.users.nodes.length, 2);
  const bytes = Buffer.from(extensions.ftv1, "base64");
  assert.equal(bytes.toString("base64"), extensions.ftv1, "strict base64");
  const trace = protobuf.Trace.decode(bytes);
  assert.equal(protobuf.Trace.verify(trace), null);
  assert.deepEqual(shape(trace.root), {
    "who: User": { "id: ID!": {} },
    "users: UserConnection!": { "nodes: [User!]!": { "displayName: String!": {} } },
  });
  assert.equal(trace.root.child[0].originalFieldName, "me");
  assert.ok(Number(trace.durationNs) > 0);
  assert.ok(Math.abs(Number(trace.startTime.seconds) * 1000 - Date.now()) < 60_000);
});

test("it is there for those who ask for it in this form only", async () => {
  const { token } = await xp.signIn("ADMIN");
  for (const headers of [{}, { "apollo-federation-include-trace": "ftv2" }]) {
    assert.equal((await ask(token, "{ me { id } }", headers)).extensions?.ftv1, undefined);
  }
});
