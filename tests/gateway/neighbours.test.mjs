// Neighbours that reach into our graph, behind real gateways: one adds a field to everything that has an id
// (`@interfaceObject`), one takes a field of ours over (`@override`). The reviews are in gateway.test.mjs.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parse } from "graphql";
import { compose, devicesSdl, notesSdl } from "./compose.mjs";
import { names, startGateway } from "./gateways.mjs";
import { serve } from "./neighbour.mjs";
import { askAs, endpoint, schemaFile, tokens } from "./xp.mjs";

// Hive's engine in JavaScript fails at `@interfaceObject`, and Grafbase wants the interface to have a key, which would keep
// other neighbours from implementing it.
const able = ["apollo", "hive-router-runtime", "hive-router", "apollo-router"];

const token = await tokens();
const running = [];
let scratch;
let place;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-neighbours-"));
  const notes = await serve(parse(notesSdl), {
    Query: { latestNotes: () => [] },
    Node: { notes: ({ id }) => [{ id: `n-${id}`, text: `On ${id}` }] },
  });
  const devices = await serve(parse(devicesSdl), {
    Query: { deviceCount: () => 1 },
    Session: { name: ({ id }) => `Device of ${id}` },
  });
  running.push(notes, devices);
  const subgraphs = { xp: endpoint, notes: notes.url, devices: devices.url };
  const composed = compose({ xp: await schemaFile(), notes: notesSdl, devices: devicesSdl }, subgraphs);
  assert.deepEqual(composed.errors, []);
  const supergraph = join(scratch, "supergraph.graphql");
  await writeFile(supergraph, composed.supergraph);
  place = { supergraph, subgraphs, scratch };
});

after(async () => {
  for (const one of running) one.close();
  if (scratch) await rm(scratch, { recursive: true });
});

for (const name of names.filter((name) => able.includes(name))) {
  describe(`neighbours behind ${name}`, () => {
    let gateway;

    before(async () => {
      gateway = await startGateway(name, place);
    });

    after(() => gateway?.close());

    test("whatever has an id has what a neighbour adds to Node", async () => {
      const query = "{ users(first: 2) { nodes { id notes { text } } } forms(first: 1) { nodes { id notes { text } owner { id notes { text } } } } }";
      const { users, forms } = await askAs(token.ADMIN, { query }, gateway.url);
      const all = [...users.nodes, ...forms.nodes, ...forms.nodes.map(({ owner }) => owner)];
      assert.equal(all.length, 4);
      for (const { id, notes } of all) assert.deepEqual(notes, [{ text: `On ${id}` }]);
    });

    test("a field that a neighbour took over comes from there, the others from here", async () => {
      const query = "{ me { sessions(first: 2) { nodes { id name isActive user { id } } } id } }";
      const { me } = await askAs(token.ADMIN, { query }, gateway.url);
      assert.ok(me.sessions.nodes.length > 0);
      for (const session of me.sessions.nodes) {
        assert.equal(session.name, `Device of ${session.id}`);
        assert.equal(typeof session.isActive, "boolean");
        assert.equal(session.user.id, me.id);
      }
    });
  });
}
