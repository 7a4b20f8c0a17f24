// The operations behind the "Examples" menu: the files of ../operations, and how their placeholders become ids of this
// server. A file opens with two comment lines, its title and what it shows. No drawing here.
import { query as ask } from "./fetcher.js";

const documents = import.meta.glob("../operations/*.graphql", { query: "?raw", import: "default", eager: true });
const variables = import.meta.glob("../operations/*.json", { query: "?raw", import: "default", eager: true });

/** What each group is about, and its examples in the order of the menu. */
const GROUPS = {
  "First steps": ["first"],
  "Workloads": ["w1", "w2", "w3", "w4", "variable-batch"],
  "Forms": ["create-form", "update-form", "save-form-draft", "publish-form", "set-form-status"],
  "Field data": [
    ...["create-submission", "create-submissions", "submission-changed", "live-form"],
    ...["record-locations", "latest-locations", "location-updated"],
  ],
  "Webhooks": [
    ...["create-webhook", "update-webhook", "rotate-webhook-secret", "redeliver-webhook", "delete-webhook"],
  ],
  "Accounts": [
    ...["sign-up", "sign-in", "refresh-session", "sign-out", "update-profile", "change-password"],
    ...["rename-session", "revoke-session", "revoke-all-sessions", "session-ended", "create-user", "update-user"],
  ],
  "Federation": ["entities"],
};
const IDS = /* GraphQL */ `query ExampleIds($first: Int) {
  users(first: $first) { nodes { id } }
  forms(first: 1) { nodes { id } }
  me { sessions(first: 1, activeOnly: true) { nodes { id } } }
}`;
/** Each is the id of another user. */
const USER_ID = /"\$userId"/g;
const FORM_ID = '"$formId"';
const SESSION_ID = '"$sessionId"';
const NOW = /"\$now"/g;
const REPRESENTATIONS = /"\$userRepresentations:(\d+)"/;

function example(name) {
  const query = documents[`../operations/${name}.graphql`];
  const [title, description] = query.split("\n", 2).map((line) => line.replace(/^#\s*/, ""));
  const [, operation, operationName] = /^(query|mutation|subscription)\s+(\w+)/m.exec(query);
  const kind = /^query.*@live\b/m.test(query) ? "live" : operation;
  return {
    name,
    title,
    description,
    query,
    kind,
    operationName,
    variables: variables[`../operations/${name}.json`]?.trim() ?? "",
  };
}

/** The examples as the menu has them. A click runs what only reads; what writes or listens is filled in. */
export const groups = Object.entries(GROUPS).map(([title, names]) => ({ title, examples: names.map(example) }));

/** What stands in the first tab of a new visitor. */
export const FIRST = groups[0].examples[0].query;

/** The example's variables with ids in place of its placeholders, asked from the server once; `problem` says why not. */
export async function fillVariables(example, endpoint, headers) {
  // The server takes a list of sets of variables from nobody who is not signed in.
  if (example.variables.startsWith("[") && !headers.Authorization) {
    return { variables: fill(example.variables, {}), problem: "Filled in, not run. It needs an account: sign in." };
  }
  const many = REPRESENTATIONS.exec(example.variables);
  const users = many ? Number(many[1]) : (example.variables.match(USER_ID)?.length ?? 0);
  const needsIds = users > 0 || [FORM_ID, SESSION_ID].some((placeholder) => example.variables.includes(placeholder));
  if (!needsIds) return { variables: fill(example.variables, {}) };
  try {
    const ids = await someIds(endpoint, headers, Math.max(1, users));
    return { variables: fill(example.variables, ids) };
  } catch (error) {
    return { variables: fill(example.variables, {}), problem: `Filled in, not run. ${error.message}` };
  }
}

function fill(text, { users = [], forms = [], sessions = [] }) {
  if (!text) return text;
  const representations = users.map((id) => ({ __typename: "User", id }));
  let next = 0;
  const filled = text
    .replace(USER_ID, () => JSON.stringify(users[next++ % users.length] ?? ""))
    .replaceAll(FORM_ID, JSON.stringify(forms[0] ?? ""))
    .replace(SESSION_ID, JSON.stringify(sessions[0] ?? ""))
    .replace(NOW, JSON.stringify(new Date().toISOString()))
    .replace(REPRESENTATIONS, JSON.stringify(representations));
  return JSON.stringify(JSON.parse(filled), null, 2);
}

async function someIds(endpoint, headers, first) {
  const { users, forms, me } = await ask(endpoint, headers, IDS, { first });
  if (!users?.nodes.length) throw new Error("This account sees no users.");
  const ids = ({ nodes }) => nodes.map(({ id }) => id);
  return { users: ids(users), forms: ids(forms), sessions: me ? ids(me.sessions) : [] };
}
