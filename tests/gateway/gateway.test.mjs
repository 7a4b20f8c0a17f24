// Real gateways before the running server and its neighbours: the same operations through each and directly, data and
// error codes equal; and what only the subgraphs together can answer. XP_GATEWAYS=apollo,grafbase asks fewer of them.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { compose, neighbourSdl } from "./compose.mjs";
import { asDirectly, look } from "./corpus.mjs";
import { exceptions } from "./exceptions.mjs";
import { names, startGateway } from "./gateways.mjs";
import { startNeighbour } from "./neighbour.mjs";
import { ABSENT, operations } from "./operations.mjs";
import { pointerSdls, startPointers } from "./pointers.mjs";
import { firstEvent, transports } from "./subscriptions.mjs";
import { ask, askAs, bearer, endpoint, schemaFile, tokens } from "./xp.mjs";

const token = await tokens();
const seen = await look(endpoint, token.ADMIN);
const all = Object.entries(operations(seen));
const [first, second] = seen.users;
const [form] = seen.forms;

// The newest first: by the first account of a form of its owner, by an account that is not there, by the second.
const reviews = [
  { id: "3", stars: 5, text: "Clear.", authorId: first.id, formId: form.id, authorName: first.displayName },
  { id: "2", stars: 1, authorId: ABSENT, formId: ABSENT },
  { id: "1", stars: 2, authorId: second.id, formId: form.id },
];

/** Over what a gateway gives events to clients. Apollo Gateway has no subscriptions. */
const subscribes = {
  apollo: [],
  hive: ["sse", "websocket"],
  "hive-router-runtime": ["sse", "websocket"],
  grafbase: ["sse", "websocket"],
  // As shipped; over WebSocket: routers/routers.mjs.
  "hive-router": ["sse"],
  // Under a licence of Apollo's only.
  "apollo-router": [],
};

const running = [];
let scratch;
let place;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-gateway-"));
  const neighbour = await startNeighbour(reviews);
  const pointers = await startPointers();
  running.push(neighbour, pointers);
  const subgraphs = { xp: endpoint, reviews: neighbour.url, ...pointers.urls };
  const sdls = { xp: await schemaFile(), reviews: neighbourSdl, ...pointerSdls };
  const supergraph = join(scratch, "supergraph.graphql");
  const composed = compose(sdls, subgraphs);
  assert.deepEqual(composed.errors, []);
  await writeFile(supergraph, composed.supergraph);
  place = { supergraph, subgraphs, scratch };
});

after(async () => {
  for (const one of running) one.close();
  if (scratch) await rm(scratch, { recursive: true });
});

test("the corpus has what it should", () => {
  assert.ok(all.length >= 60, `${all.length} operations`);
  for (const title of Object.values(exceptions).flatMap(Object.keys)) {
    assert.ok(all.some(([known]) => known === title), `an exception for an operation that is not there: ${title}`);
  }
});

for (const name of names) {
  describe(`through ${name}`, () => {
    let gateway;

    before(async () => {
      gateway = await startGateway(name, place);
    });

    after(() => gateway?.close());

    for (const [title, operation] of all) {
      test(`${title}: as directly`, () => asDirectly({ direct: endpoint, through: gateway.url }, token, operation, exceptions[name][title]));
    }

    test("a token that is no token is refused", async () => {
      const { data = null, errors } = await ask(gateway.url, { query: "{ me { id } }" }, bearer("no.such.token"));
      assert.equal(data?.me ?? null, null);
      assert.ok(errors.length > 0);
    });

    test("a review leads to its author here and on to the author's forms", async () => {
      const author = "id email displayName forms(first: 3) { nodes { id title } }";
      const query = `{ review(id: "3") { stars author { ${author} } form { id title } } }`;
      const { review } = await askAs(token.ADMIN, { query }, gateway.url);
      const { user, form: reviewed } = await askAs(token.ADMIN, {
        query: `query ($user: ID!, $form: ID!) { user(id: $user) { ${author} } form(id: $form) { id title } }`,
        variables: { user: first.id, form: form.id },
      });
      assert.deepEqual(review, { stars: 5, author: user, form: reviewed });
    });

    test("an author who is not there is null, and the reviews beside it are whole", async () => {
      const query = "{ latestReviews { id author { displayName } form { title } } }";
      const { data } = await ask(gateway.url, { query }, bearer(token.ADMIN));
      assert.deepEqual(data.latestReviews.map(({ author }) => author?.displayName ?? null), [
        first.displayName,
        null,
        second.displayName,
      ]);
      assert.deepEqual(data.latestReviews.map(({ form }) => typeof form?.title), ["string", "undefined", "string"]);
    });

    test("the neighbour computes with a field of ours that it requires", async () => {
      const query = "{ users(first: 100) { nodes { id displayName reputation reviews { id author { displayName } } } } }";
      const { users } = await askAs(token.ADMIN, { query }, gateway.url);
      assert.equal(users.nodes.length, seen.users.length);
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
      const found = await askAs(token.ADMIN, { query, variables: { id: form.id } }, gateway.url);
      assert.equal(found.form.averageStars, 3.5);
      assert.deepEqual(found.form.reviews, [{ author: { id: first.id } }, { author: { id: second.id } }]);
    });

    test("what the neighbour provides of an account comes from there or from here, the rest from here", async () => {
      const query = "{ lastReviewer { id displayName email } }";
      const { lastReviewer } = await askAs(token.ADMIN, { query }, gateway.url);
      assert.deepEqual(lastReviewer, { id: first.id, displayName: first.displayName, email: first.email });
    });

    for (const transport of subscribes[name]) {
      test(`events come over ${transport}, with what the neighbour adds`, async () => {
        const query = "subscription { locationUpdated { latitude user { displayName reputation } } }";
        const events = transports[transport](gateway, query, token.COLLECTOR);
        const { data, errors } = await firstEvent(events, token.COLLECTOR);
        assert.equal(errors, undefined, JSON.stringify(errors));
        const { latitude, user } = data.locationUpdated;
        assert.ok(latitude >= 1 && latitude < 2, `latitude ${latitude}`);
        assert.equal(user.reputation, `${user.displayName}: 0 reviews`);
      });

      test(`nobody gets no events over ${transport}`, async () => {
        const query = "subscription { locationUpdated { latitude } }";
        const events = transports[transport](gateway, query);
        const { errors } = (await events.next()).value;
        assert.deepEqual(errors.map(({ extensions }) => extensions?.code), ["UNAUTHENTICATED"]);
        await events.return();
      });
    }
  });
}
