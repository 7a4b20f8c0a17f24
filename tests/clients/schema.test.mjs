// The schema for client tools: what graphql-js, which most of them are made with, makes of it, and that the server, the
// command and the repository have the same. That Relay's compiler and graphql-codegen with `strictScalars` take it as it is
// is held by documents.test.mjs, whose manifests are compiled with it. Not here: what is in it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import {
  buildClientSchema, buildSchema, findBreakingChanges, getIntrospectionQuery, introspectionFromSchema, isScalarType,
  isSpecifiedDirective, isSpecifiedScalarType, parse, specifiedRules, validate,
} from "graphql";
import { schema as download } from "./manifests.mjs";
import { endpoint } from "./xp.mjs";

let text, schema;

before(async () => {
  text = await download();
  schema = buildSchema(text);
});

test("the server, the command and the repository have the same text", async () => {
  // Compared as a whole: 40 KiB of difference would tell nobody more.
  assert.ok(text === (await readFile(join(import.meta.dirname, "../../schema/api.graphql"), "utf8")), "schema/api.graphql");
  assert.ok(process.env.XP_BINARY, "XP_BINARY is not set: the program whose command is asked");
  const printed = execFileSync(process.env.XP_BINARY, ["schema", "--api"], { encoding: "utf8", env: {} });
  assert.ok(text === printed, "xp schema --api");
});

test("it has nothing of a federation, and besides GraphQL's own directives only that of live queries", () => {
  for (const name of Object.keys(schema.getTypeMap())) assert.doesNotMatch(name, /^_(?!_)|federation__|link__/);
  for (const field of Object.keys(schema.getQueryType().getFields())) assert.doesNotMatch(field, /^_/);
  const own = schema.getDirectives().filter((directive) => !isSpecifiedDirective(directive));
  assert.deepEqual(own.map(({ name }) => name), ["live"]);
  const scalars = Object.values(schema.getTypeMap()).filter(isScalarType).filter((type) => !isSpecifiedScalarType(type));
  assert.deepEqual(scalars.map(({ name }) => name).sort(), ["DateTime", "JSON"]);
  assert.ok(scalars.every(({ specifiedByURL }) => specifiedByURL));
  assert.ok(Object.values(schema.getTypeMap()).some((type) => type.isOneOf));
});

test("what introspection says is in it, but for what gateways ask", async () => {
  const headers = { "content-type": "application/json" };
  const query = getIntrospectionQuery({ oneOf: true, specifiedByUrl: true });
  const response = await fetch(endpoint, { method: "POST", headers, body: JSON.stringify({ query }) });
  const live = buildClientSchema((await response.json()).data);
  // Where directives may stand is the tool's own knowledge.
  const changed = (from, to) =>
    findBreakingChanges(from, to).filter(({ type }) => !type.startsWith("DIRECTIVE")).map(({ description }) => description);
  const changes = changed(live, schema);
  assert.ok(changes.length > 0 && changes.every((change) => /\b_(Any|Entity|Service|entities|service)\b/.test(change)), changes.join("\n"));
  assert.deepEqual(changed(schema, live), []);
  // It can be turned into a client's introspection file, and back.
  assert.deepEqual(changed(schema, buildClientSchema(introspectionFromSchema(schema))), []);
});

test("documents are judged by it as by the server", () => {
  const judged = (document) => validate(schema, parse(document), specifiedRules).length;
  assert.equal(judged("{ users(first: 2) { nodes { id sessions(first: 1) { totalCount } } } }"), 0);
  assert.equal(judged("{ nothing }"), 1);
});
