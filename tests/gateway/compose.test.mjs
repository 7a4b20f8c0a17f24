// Our schema composes, whole and split by domain, alone and with its neighbours, by three composers; and the golden
// supergraphs of federation/ are what comes out. UPDATE_GOLDEN=1 writes these anew.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { before, describe, test } from "node:test";
import { buildASTSchema, lexicographicSortSchema, parse, printSchema } from "graphql";
import { authorizationSdl, composers, devicesSdl, neighbourSdl, notesSdl, splitSdls } from "./compose.mjs";
import { ask, endpoint, schemaFile } from "./xp.mjs";

// Whatever is overridden can go where it was: Apollo's composer says so whenever `@override` is used as it is meant.
const OVERRIDDEN = /^OVERRIDDEN_FIELD_CAN_BE_REMOVED: Field "Session.name"/;

const GOLDEN = {
  whole: "supergraph.graphql",
  split: "supergraph-split.graphql",
  authorization: "supergraph-authorization.graphql",
};

let sdl;

before(async () => {
  sdl = (await ask(endpoint, { query: "{ _service { sdl } }" })).data._service.sdl;
});

test("the schema file is the SDL that gateways get, byte for byte", async () => {
  assert.equal(await schemaFile(), sdl);
});

test("the roots have the names that composers look for", () => {
  for (const root of ["Query", "Mutation", "Subscription"]) assert.match(sdl, new RegExp(`^type ${root}\\b`, "m"));
  assert.doesNotMatch(sdl, /^(extend )?schema [^@]*\{/m);
});

const devicesOf = (ours) => devicesSdl.replace('from: "xp"', `from: "${"xp" in ours ? "xp" : "accounts"}"`);

/** What is composed, by what it is called. */
const SETS = {
  "alone": (ours) => ours,
  "with a neighbour that requires and provides": (ours) => ({ ...ours, reviews: neighbourSdl }),
  "with a neighbour that adds to an interface": (ours) => ({ ...ours, notes: notesSdl }),
  "with a neighbour that overrides": (ours) => ({ ...ours, devices: devicesOf(ours) }),
  "with all of them": (ours) => ({ ...ours, reviews: neighbourSdl, notes: notesSdl, devices: devicesOf(ours) }),
};

const ours = {
  whole: () => ({ xp: sdl }),
  split: () => splitSdls(),
  authorization: () => ({ xp: authorizationSdl() }),
};

for (const [name, compose] of Object.entries(composers)) {
  describe(`composed by ${name}, without errors or hints`, () => {
    for (const [form, sdls] of Object.entries(ours)) {
      for (const [title, set] of Object.entries(SETS)) {
        test(`the ${form}, ${title}`, () => {
          const { supergraph, errors, hints } = compose(set(sdls()));
          assert.deepEqual(errors, []);
          assert.deepEqual(hints.filter((hint) => !OVERRIDDEN.test(hint)), []);
          assert.ok(supergraph);
        });
      }
    }

    test("each subgraph of the split by itself", () => {
      for (const [part, text] of Object.entries(splitSdls())) {
        const { errors, hints } = compose({ [part]: text });
        assert.deepEqual([...errors, ...hints], [], part);
      }
    });
  });
}

test("the split has every field of the whole", () => {
  const [whole, split] = [ours.whole, ours.split].map((sdls) => apiOf(composers.apollo(sdls()).supergraph));
  assert.equal(split, whole);
});

for (const [form, file] of Object.entries(GOLDEN)) {
  test(`the golden supergraph of the ${form} is what composition gives`, async () => {
    const place = new URL(`../../federation/${file}`, import.meta.url);
    const { supergraph } = composers.apollo({ ...ours[form](), reviews: neighbourSdl });
    if (process.env.UPDATE_GOLDEN) await writeFile(place, supergraph);
    const same = supergraph === (await readFile(place, "utf8").catch(() => ""));
    assert.ok(same, `federation/${file} is old: run this test with UPDATE_GOLDEN=1 and look at the difference`);
  });
}

// Apollo Router starts with these only under a licence of Apollo's.
test("only the supergraph that is meant to has directives that need a licence", async () => {
  const read = (file) => readFile(new URL(`../../federation/${file}`, import.meta.url), "utf8");
  const [whole, split, authorization] = await Promise.all(Object.values(GOLDEN).map(read));
  for (const supergraph of [whole, split]) assert.doesNotMatch(supergraph, /authenticated|requiresScopes|policy/);
  assert.match(authorization, /@authenticated/);
  assert.match(authorization, /@requiresScopes/);
});

/** What clients see of a supergraph: without what is only for gateways. */
function apiOf(supergraph) {
  const document = parse(supergraph);
  const isOurs = ({ kind, name }) => kind !== "DirectiveDefinition" && !/^(join|link|federation)__/.test(name?.value);
  const definitions = document.definitions.filter(isOurs);
  return printSchema(lexicographicSortSchema(buildASTSchema({ ...document, definitions }, { assumeValidSDL: true })));
}
