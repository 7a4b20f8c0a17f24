// Real gateways before the running server and a neighbour: the same operations through each and directly, data and
// error codes equal; and what only the two subgraphs together can answer. XP_GATEWAYS=apollo,hive asks more than the
// Apollo Gateway.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { compose, neighbourSdl } from "./compose.mjs";
import { names, startGateway } from "./gateways.mjs";
import { startNeighbour } from "./neighbour.mjs";
import { ABSENT, IDS, same } from "./operations.mjs";
import { ask, askAs, endpoint, schemaFile, token } from "./xp.mjs";

const bearer = await token();
const ids = await seen();
const [first, second] = ids.users;

// The newest first: by the first account of a form of its owner, by an account that is not there, by the second.
const reviews = [
  { id: "3", stars: 5, text: "Clear.", authorId: first.id, formId: ids.forms[0].id },
  { id: "2", stars: 1, authorId: ABSENT, formId: ABSENT },
  { id: "1", stars: 2, authorId: second.id, formId: ids.forms[0].id },
];

let folder;
let neighbour;
let supergraph;

before(async () => {
  neighbour = await startNeighbour(reviews);
  const sdls = { xp: await schemaFile(), reviews: neighbourSdl };
  folder = await mkdtemp(join(tmpdir(), "xp-gateway-"));
  supergraph = join(folder, "supergraph.graphql");
  await writeFile(supergraph, compose(sdls, { xp: endpoint, reviews: neighbour.url }).supergraph);
});

after(async () => {
  neighbour?.close();
  if (folder) await rm(folder, { recursive: true });
});

for (const name of names) {
  describe(`through ${name}`, () => {
    let gateway;

    before(async () => {
      gateway = await startGateway(name, supergraph);
    });

    after(() => gateway?.close());

    for (const [title, operation] of Object.entries(same(ids))) {
      test(`${title}: as directly`, async () => {
        const [direct, through] = await Promise.all([endpoint, gateway.url].map((url) => answer(url, operation)));
        assert.deepEqual(through, direct);
        assert.deepEqual(direct.codes, operation.codes ?? []);
        if (!operation.codes) assert.ok(direct.data);
      });
    }

    test("who sends no token is nobody, as directly", async () => {
      const operation = { query: "{ me { id } users(first: 5) { nodes { id email } } }" };
      const [direct, through] = await Promise.all([endpoint, gateway.url].map((url) => ask(url, operation)));
      assert.deepEqual(through.data, direct.data);
      assert.equal(through.data.me, null);
    });

    test("a review leads to its author here and on to the author's forms", async () => {
      const author = "id email displayName forms(first: 3) { nodes { id title } }";
      const query = `{ review(id: "3") { stars author { ${author} } form { id title } } }`;
      const { review } = await askAs(bearer, { query }, gateway.url);
      const { user, form } = await askAs(bearer, {
        query: `query ($user: ID!, $form: ID!) { user(id: $user) { ${author} } form(id: $form) { id title } }`,
        variables: { user: first.id, form: ids.forms[0].id },
      });
      assert.deepEqual(review, { stars: 5, author: user, form });
    });

    test("an author who is not there is null, and the reviews beside it are whole", async () => {
      const query = "{ latestReviews { id author { displayName } form { title } } }";
      const { data } = await askThrough(gateway, { query });
      assert.deepEqual(data.latestReviews.map(({ author }) => author?.displayName ?? null), [
        first.displayName,
        null,
        second.displayName,
      ]);
      assert.deepEqual(data.latestReviews.map(({ form }) => typeof form?.title), ["string", "undefined", "string"]);
    });

    test("the neighbour computes with a field of ours that it requires", async () => {
      const query = "{ users(first: 100) { nodes { id displayName reputation reviews { id author { displayName } } } } }";
      const { users } = await askAs(bearer, { query }, gateway.url);
      assert.equal(users.nodes.length, ids.users.length);
      for (const { id, displayName, reputation, reviews: own } of users.nodes) {
        assert.deepEqual(
          own,
          reviews.filter(({ authorId }) => authorId === id).map((one) => ({ id: one.id, author: { displayName } })),
        );
        assert.equal(reputation, `${displayName}: ${own.length} reviews`);
      }
    });

    test("a form of ours carries the neighbour's mean", async () => {
      const query = "query ($id: ID!) { form(id: $id) { title averageStars reviews { author { id } } } }";
      const { form } = await askAs(bearer, { query, variables: { id: ids.forms[0].id } }, gateway.url);
      assert.equal(form.averageStars, 3.5);
      assert.deepEqual(form.reviews, [{ author: { id: first.id } }, { author: { id: second.id } }]);
    });
  });
}

async function seen() {
  const { users, forms, latestLocations } = await askAs(bearer, IDS);
  assert.ok(users.nodes.length > 1 && forms.nodes.length > 0 && latestLocations.nodes.length > 0, "no demo data");
  return { users: users.nodes, forms: forms.nodes, location: latestLocations.nodes[0].id };
}

function askThrough(gateway, operation) {
  return ask(gateway.url, operation, { authorization: `Bearer ${bearer}` });
}

/** What must be alike: the data and the codes. `data` is null where the request was refused whole. */
async function answer(url, operation) {
  const { data = null, errors = [] } = await ask(url, operation, { authorization: `Bearer ${bearer}` });
  return { data, codes: errors.map(({ extensions }) => extensions?.code) };
}
