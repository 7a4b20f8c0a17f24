// The graph served by four processes behind one gateway answers as the one that serves it whole: the same operations,
// whoever asks, reads and writes. Not here: that it composes (compose.test.mjs), each gateway's own ways (gateway.test.mjs).
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { compose, neighbourSdl, splitSdls } from "./compose.mjs";
import { asDirectly, look } from "./corpus.mjs";
import { ofTheSplit } from "./exceptions.mjs";
import { names, startGateway } from "./gateways.mjs";
import { startNeighbour } from "./neighbour.mjs";
import { operations } from "./operations.mjs";
import { pointerSdls, startPointers } from "./pointers.mjs";
import { startSplit } from "./split.mjs";
import { askAs, schemaFile, tokens } from "./xp.mjs";

const split = await startSplit();
const token = await tokens(split.whole);
const all = Object.entries(operations(await look(split.whole, token.ADMIN)));
const running = [];
let scratch;
let place;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-split-gateway-"));
  const [neighbour, pointers] = [await startNeighbour([]), await startPointers()];
  running.push(neighbour, pointers);
  const subgraphs = { ...split.urls, reviews: neighbour.url, ...pointers.urls };
  const composed = compose({ ...splitSdls(), reviews: neighbourSdl, ...pointerSdls }, subgraphs);
  assert.deepEqual(composed.errors, []);
  const supergraph = join(scratch, "supergraph.graphql");
  await writeFile(supergraph, composed.supergraph);
  place = { supergraph, subgraphs, scratch, home: split.whole };
});

after(async () => {
  for (const one of running) one.close();
  await split.close();
  if (scratch) await rm(scratch, { recursive: true });
});

test("each process serves the schema that the command prints for it", async () => {
  for (const [name, sdl] of Object.entries(splitSdls())) assert.equal(await schemaFile(split.urls[name]), sdl, name);
});

for (const name of names) {
  describe(`four processes behind ${name}`, () => {
    let gateway;

    before(async () => {
      gateway = await startGateway(name, place);
    });

    after(() => gateway?.close());

    for (const [title, operation] of all) {
      test(`${title}: as the whole`, () => asDirectly({ direct: split.whole, through: gateway.url }, token, operation, ofTheSplit[name][title]));
    }

    test("one operation goes through all of them", async () => {
      const query = `{
        users(first: 3) { nodes {
          displayName
          sessions(first: 1) { nodes { userAgent lastLocation { latitude } } }
          forms(first: 1) { nodes { title owner { displayName } } }
          lastLocation { latitude session { isActive } }
          activity(first: 1) { nodes { actionType subject { __typename ... on Form { title } ... on User { displayName } } } }
        } }
      }`;
      assert.deepEqual(await askAs(token.ADMIN, { query }, gateway.url), await askAs(token.ADMIN, { query }, split.whole));
    });
  });
}
