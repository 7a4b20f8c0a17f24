// Asks the operations of operations.mjs of a server directly and through a gateway before it, and compares: the data and
// the error codes must be alike. Not here: what is asked, and where gateways differ (exceptions.mjs).
import assert from "node:assert/strict";
import { setTimeout as wait } from "node:timers/promises";

import { IDS } from "./operations.mjs";
import { ask, askAs, bearer } from "./xp.mjs";

/**
 * One operation, as everybody whom it is for.
 *
 * @param {{direct: string, through: string}} urls
 * @param {Record<string, string>} token by role
 * @param {{because: string, codes?: Function, data?: Function}} [exception] where the gateway differs
 */
export async function asDirectly(urls, token, operation, exception) {
  const { as = ["ADMIN"], codes = [], mayRefuse = false } = operation;
  let differs = false;
  for (const role of as) {
    const direct = await answer(urls.direct, operation, token[role], "direct");
    const through = await answer(urls.through, operation, token[role]);
    const expected = {
      data: exception?.data ? exception.data(direct) : direct.data,
      codes: exception?.codes ? exception.codes(direct) : direct.codes,
    };
    assert.deepEqual(through, expected, `as ${role ?? "nobody"}`);
    differs ||= JSON.stringify(expected) !== JSON.stringify(direct);
    if (!mayRefuse) assert.deepEqual(direct.codes, codes, `directly as ${role ?? "nobody"}`);
    if (!mayRefuse && codes.length === 0) assert.ok(direct.data);
  }
  if (exception) assert.ok(differs, "the exception is no longer needed");
}

/** What the operations are about: ids of objects of every type, as the administrator sees them. */
export async function look(url, token) {
  const { users, forms, activityLogs, latestLocations, me } = await askAs(token, IDS, url);
  const nodes = (list) => list.edges.map(({ node }) => node);
  const filled = nodes(forms).find(({ submissions, currentVersion }) => currentVersion && submissions.nodes.length > 0);
  const owned = nodes(latestLocations).find(({ session }) => session);
  assert.ok(filled && owned && me.sessions.nodes.length > 0, "no demo data");
  const told = await webhook(url, token, filled.id);
  return {
    users: nodes(users),
    forms: nodes(forms),
    me: { ...me, session: me.sessions.nodes[0].id },
    ids: {
      User: nodes(users).reduce((most, user) => (user.locations.totalCount > most.locations.totalCount ? user : most)).id,
      Session: owned.session.id,
      Form: filled.id,
      FormVersion: filled.currentVersion.id,
      Submission: filled.submissions.nodes[0].id,
      Location: owned.id,
      ActivityLog: nodes(activityLogs)[0].id,
      Webhook: told.id,
      WebhookDelivery: told.deliveries.nodes[0].id,
    },
    cursors: Object.fromEntries(
      Object.entries({ users, forms, activityLogs, latestLocations }).map(([list, { edges }]) => [list, edges[4].cursor]),
    ),
  };
}

/** A webhook with a delivery, which the demo data does not have. It is disabled, so that nothing of it changes any more. */
async function webhook(url, token, form) {
  const existing = async () => {
    const query = "{ webhooks(first: 1) { nodes { id deliveries(first: 1) { nodes { id } } } } }";
    return (await askAs(token, { query }, url)).webhooks.nodes[0];
  };
  const known = await existing();
  if (known) return known;
  const create = `mutation { createWebhook(input: { url: "http://127.0.0.1:9/", events: [FORM_UPDATED] }) { webhook { id } userErrors { message } } }`;
  const { createWebhook } = await askAs(token, { query: create }, url);
  assert.deepEqual(createWebhook.userErrors, []);
  const { id } = createWebhook.webhook;
  const update = "mutation ($id: ID!) { updateForm(input: { id: $id, description: \"Told to a webhook\" }) { userErrors { message } } }";
  await askAs(token, { query: update, variables: { id: form } }, url);
  for (const until = Date.now() + 60_000; (await existing()).deliveries.nodes.length === 0; await wait(100)) {
    assert.ok(Date.now() < until, "no delivery was noted");
  }
  const disable = "mutation ($id: ID!) { updateWebhook(input: { id: $id, isEnabled: false }) { userErrors { message } } }";
  await askAs(token, { query: disable, variables: { id } }, url);
  // An attempt under way ends.
  await wait(1_000);
  return existing();
}

/** What must be alike: the data and the codes. `data` is null where the request was refused whole. */
async function answer(url, operation, token, way) {
  const asked = way === "direct" ? (operation.direct ?? operation) : operation;
  const pick = (way === "direct" ? operation.directly : operation.through) ?? ((data) => data);
  const variables = typeof asked.variables === "function" ? asked.variables() : asked.variables;
  const { data = null, errors = [] } = await ask(url, { ...asked, variables }, bearer(token));
  return { data: pick(data) ?? null, codes: errors.map(({ extensions }) => String(extensions?.code)).sort() };
}
