// Our schema composes, alone and with a neighbour, and federation/supergraph.graphql is what comes out.
// UPDATE_GOLDEN=1 writes that file anew.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { before, test } from "node:test";
import { compose, neighbourSdl } from "./compose.mjs";
import { ask, endpoint, schemaFile } from "./xp.mjs";

const GOLDEN = new URL("../../federation/supergraph.graphql", import.meta.url);

let sdl;

before(async () => {
  sdl = (await ask(endpoint, { query: "{ _service { sdl } }" })).data._service.sdl;
});

test("the schema file is the SDL that gateways get, byte for byte", async () => {
  assert.equal(await schemaFile(), sdl);
});

test("the roots have the names that composers look for", () => {
  assert.match(sdl, /^type Query\b/m);
  assert.doesNotMatch(sdl, /^(extend )?schema [^@]*\{/m);
});

test("the schema composes alone, without errors or hints", (t) => {
  clean(t, compose({ xp: sdl }));
});

test("the schema composes with the neighbour, without errors or hints", (t) => {
  clean(t, compose({ xp: sdl, reviews: neighbourSdl }));
});

test("the golden supergraph is what composition gives", async () => {
  const { supergraph } = compose({ xp: sdl, reviews: neighbourSdl });
  if (process.env.UPDATE_GOLDEN) await writeFile(GOLDEN, supergraph);
  const same = supergraph === (await readFile(GOLDEN, "utf8"));
  assert.ok(same, "federation/supergraph.graphql is old: run this test with UPDATE_GOLDEN=1 and look at the difference");
});

function clean(t, { supergraph, errors, hints }) {
  for (const hint of hints) t.diagnostic(hint);
  assert.deepEqual(errors, []);
  assert.deepEqual(hints, []);
  assert.ok(supergraph);
}
