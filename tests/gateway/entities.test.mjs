// `_entities` as gateways call it, asked of the running server directly: many keys in one statement, in their order,
// each with its own fate.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ABSENT, IDS } from "./operations.mjs";
import { ask, askAs, bearer, endpoint, tokens } from "./xp.mjs";

const COUNT = 1_000;
const QUERY = "query ($keys: [_Any!]!) { _entities(representations: $keys) { __typename ... on User { id displayName } } }";

const { ADMIN: token } = await tokens();
const { users } = await askAs(token, IDS);

test("1,000 accounts are answered in the order asked, by one statement", async () => {
  const wanted = Array.from({ length: COUNT }, (_, index) => (index % 4 === 3 ? absent(index) : present(index)));
  const { data, errors, extensions } = await entities(wanted.map(({ id }) => ({ __typename: "User", id })));
  assert.equal(errors, undefined, JSON.stringify(errors?.slice(0, 3)));
  assert.deepEqual(data._entities, wanted.map(({ found }) => found));
  assert.ok(extensions?.explain, "no extensions.explain: is this a development server?");
  assert.deepEqual(extensions.explain.sql.map(({ name }) => name), ["user.by_ids"]);
});

test("what cannot be answered is null in its place and says why; the others are whole", async () => {
  const [{ id, displayName }] = users.nodes;
  const { data, errors } = await entities([
    { __typename: "User", id },
    { __typename: "Nope", id },
    { id },
    { __typename: "User" },
    { __typename: "User", id: null },
    { __typename: "User", id: "x" },
    { __typename: "User", id: ABSENT },
    { __typename: "User", id, email: "ignored@example.com", extra: 1 },
    { __typename: "User", id },
  ]);
  const whole = { __typename: "User", id, displayName };
  assert.deepEqual(data._entities, [whole, null, null, null, null, null, null, whole, whole]);
  const places = errors.map(({ path }) => path);
  assert.ok(places.every(([field, index]) => field === "_entities" && index >= 1 && index <= 5), JSON.stringify(places));
  assert.ok(places.some(([, index]) => index === 1), "an unknown type has no error");
});

function entities(keys) {
  const headers = { ...bearer(token), "x-explain": "1" };
  return ask(endpoint, { query: QUERY, variables: { keys } }, headers);
}

function present(index) {
  const { id, displayName } = users.nodes[index % users.nodes.length];
  return { id, found: { __typename: "User", id, displayName } };
}

function absent(index) {
  return { id: `00000000-0000-7000-8000-${String(index).padStart(12, "0")}`, found: null };
}
