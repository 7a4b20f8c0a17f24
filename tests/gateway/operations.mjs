// The operations that are asked through each gateway and directly; both must answer alike. Reads are those that the
// tests in Rust ask too (tests/it/corpus.graphql); here are the entities, the writes and the refusals. Ids come from the
// server that is tested. Not here: asking, and where a gateway differs by its nature (exceptions.mjs).
import { readFileSync } from "node:fs";

export const ABSENT = "00000000-0000-7000-8000-00000000dead";
const DAY_MS = 86_400_000;

/** Ids of what the administrator sees. */
export const IDS = {
  query: `{
    users(first: 100) { edges { cursor node { id displayName email locations { totalCount } } } nodes { id displayName } }
    forms(first: 100) {
      edges { cursor node { id status submissionCount draftRevision owner { id } currentVersion { id } submissions(first: 1) { nodes { id } } } }
    }
    activityLogs(first: 9) { edges { cursor node { id } } }
    latestLocations(first: 9) { edges { cursor node { id session { id } } } }
    me { id displayName sessions(first: 1) { nodes { id } } }
  }`,
};

const ROLES = ["ADMIN", "MANAGER", "EDITOR", "COLLECTOR", "VIEWER", undefined];

/**
 * An operation: `query` with `variables` (or a function that makes them anew each time), asked by the demo accounts of the
 * roles `as` (`undefined`: nobody), with the `codes` of the errors that it must have. An entity is asked by `query`
 * through a gateway, and by `direct` at our server; `through` and `directly` say where the objects are in the answers.
 *
 * @returns {Record<string, object>} by title
 */
export function operations(seen) {
  return { ...entities(seen), ...reads(seen), ...writes(seen), ...refusals(seen) };
}

/** Objects of every type by every key: as `_entities` has them, whoever asks. */
function entities({ users, forms, ids }) {
  const columns = {
    User: "id displayName email role lastLogin forms(first: 2) { nodes { id title } }",
    Session: "id isActive userAgent user { displayName }",
    Form: "id title status owner { id displayName } currentVersion { number }",
    FormVersion: "id number hash form { title }",
    Submission: "id data formVersion user { displayName } form { title }",
    Location: "id timestamp latitude longitude user { displayName }",
    ActivityLog: "id actionType createdAt user { displayName } subject { __typename id }",
    Webhook: "id url events isEnabled",
    WebhookDelivery: "id event status createdAt",
  };
  const found = {};
  for (const [type, selection] of Object.entries(columns)) {
    const key = ids[type];
    found[`${type} by id: there, absent, and there again`] = entity(type, "id", [key, ABSENT, key], selection, { as: ROLES });
    // A gateway may say of an object that it asked for by a malformed key whatever it says of an absent one.
    found[`${type} by an id that is none, beside a good one`] = entity(type, "id", ["x", key], selection, {
      codes: ["BAD_USER_INPUT"],
    });
  }
  const emails = [users[1].email, "nobody@example.com", users[0].email, users[1].email.toUpperCase()];
  found["User by e-mail, for those who may see it and for those who may not"] = entity("User", "email", emails, "displayName role", {
    as: ROLES,
  });
  const all = users.map(({ id }) => id);
  found["a hundred accounts by id"] = entity("User", "id", all, "displayName createdAt lastLocation { latitude }");
  const everyForm = forms.map(({ id }) => id);
  found["every form by id: drafts are for their owners"] = entity("Form", "id", everyForm, "title status draft", { as: ROLES });
  return found;
}

function entity(type, key, keys, selection, more = {}) {
  const root = key === "id" ? "byId" : "byEmail";
  return {
    query: `query ($keys: [String!]!) { ${root}(keys: $keys) { object: ${type} { ${selection} } } }`,
    variables: { keys },
    direct: {
      query: `query ($of: [_Any!]!) { _entities(representations: $of) { ... on ${type} { ${selection} } } }`,
      variables: { of: keys.map((value) => ({ __typename: type, [key]: value })) },
    },
    through: (data) => data?.[root].map(({ object }) => object),
    directly: (data) => data?._entities,
    ...more,
  };
}

/** What tests/it/corpus.graphql asks, but for what only a subgraph has. */
function reads(seen) {
  const text = readFileSync(new URL("../it/corpus.graphql", import.meta.url), "utf8");
  const variables = corpusVariables(seen);
  const found = {};
  for (const block of text.split("\n\n")) {
    const [head, name] = block.trim().match(/^query (\w+)[^{]*/);
    if (/\b(_entities|_service|__schema)\b/.test(block)) continue;
    const used = Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(head));
    found[name] = { query: block, variables: Object.fromEntries(used), as: ["ADMIN", "COLLECTOR", undefined], mayRefuse: true };
  }
  return found;
}

function corpusVariables({ users, forms, ids, cursors }) {
  const daysAgo = (days) => new Date(Date.now() - days * DAY_MS).toISOString();
  const { User: user, Session: session, Form: form, Location: location, ActivityLog: entry } = ids;
  return {
    user, session, form, location, entry,
    version: ids.FormVersion,
    submission: ids.Submission,
    email: "collector@example.com",
    lookup: { email: "admin@example.com" },
    users: users.slice(0, 5).map(({ id }) => id),
    forms: forms.slice(0, 3).map(({ id }) => id),
    sessions: [session],
    ids: [user, ABSENT, form, session, entry, ids.FormVersion, ids.Submission, location, user],
    from: daysAgo(200), to: daysAgo(20),
    yes: true, no: false,
    area: { box: { west: 0, south: 0, east: 179.5, north: 80 } },
    userFilter: { search: "a", roles: "COLLECTOR", createdAt: { from: daysAgo(300) } },
    userOrder: { field: "DISPLAY_NAME", direction: "DESC" },
    userCursor: cursors.users, formCursor: cursors.forms, entryCursor: cursors.activityLogs, latestCursor: cursors.latestLocations,
  };
}

/** Each is run once directly and once through the gateway; the answers do not tell which was first. */
function writes({ me, forms, ids }) {
  let count = 0;
  const fresh = () => `${process.pid}-${Date.now()}-${count++}`;
  const errors = "userErrors { __typename code path }";
  const draft = forms.find(({ status }) => status === "DRAFT");
  const point = { latitude: 48.2, longitude: 16.4, accuracy: 7.5 };
  return {
    "the name of one's own account": {
      query: `mutation Rename($input: UpdateProfileInput!) { updateProfile(input: $input) { user { id displayName email } ${errors} } }`,
      variables: { input: { displayName: me.displayName } },
    },
    "an empty name is refused": {
      query: `mutation { updateProfile(input: { displayName: " " }) { user { id } ${errors} } }`,
      as: ROLES.slice(0, 5),
    },
    "the name of a session of one's own": {
      query: `mutation ($id: ID!) { renameSession(input: { id: $id, name: "Tablet" }) { session { id name user { id } } ${errors} } }`,
      variables: { id: me.session },
    },
    "the session of somebody else cannot be ended": {
      query: `mutation ($id: ID!) { revokeSession(input: { id: $id }) { session { id } ${errors} } }`,
      variables: { id: ids.Session },
      as: ["VIEWER"],
    },
    "a new form": {
      query: `mutation ($input: CreateFormInput!) {
        createForm(input: $input) { form { title description status version draft draftRevision owner { id } currentVersion { id } } ${errors} }
      }`,
      variables: { input: { title: "Through a gateway", definition: { schema: 1, fields: [] } } },
    },
    "a new form without a title, by everybody": {
      query: `mutation ($input: CreateFormInput!) { createForm(input: $input) { form { id } ${errors} } }`,
      variables: { input: { title: "" } },
      as: ROLES,
      mayRefuse: true,
    },
    "a form that has changed since": {
      query: `mutation ($input: PublishFormInput!) { publishForm(input: $input) { form { title draftRevision } ${errors} } }`,
      variables: { input: { id: draft.id, baseRevision: 999 } },
    },
    "the form of somebody else": {
      query: `mutation ($id: ID!) { setFormStatus(input: { id: $id, status: CLOSED }) { form { id } ${errors} } }`,
      variables: { id: ids.Form },
      as: ["COLLECTOR", "VIEWER"],
      mayRefuse: true,
    },
    "answers that do not fit": {
      query: `mutation ($input: CreateSubmissionInput!) {
        createSubmission(input: $input) {
          submission { id }
          userErrors { __typename code path ... on SubmissionDataError { pointer rule } }
        }
      }`,
      variables: { input: { formId: ids.Form, data: { nothing: "of the kind" } } },
      as: ["ADMIN", "COLLECTOR", "VIEWER"],
      mayRefuse: true,
    },
    "answers to a form that is not there": {
      query: `mutation ($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } ${errors} } }`,
      variables: { input: { formId: ABSENT, data: {} } },
    },
    "positions, good and bad": {
      query: `mutation ($input: RecordLocationsInput!) {
        recordLocations(input: $input) { acceptedCount rejectedCount results { outcome location { latitude user { id } } ${errors} } }
      }`,
      variables: () => {
        const timestamp = new Date(Date.now() - 30 * DAY_MS).toISOString();
        return { input: { points: [{ ...point, timestamp, clientId: fresh() }, { ...point, timestamp, latitude: 91 }] } };
      },
      as: ["ADMIN", "COLLECTOR"],
    },
    "positions are not for those who only read": {
      query: `mutation ($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }`,
      variables: () => ({ input: { points: [{ ...point, timestamp: new Date().toISOString() }] } }),
      as: ["VIEWER"],
      codes: ["FORBIDDEN"],
    },
    "two changes, one after the other": {
      query: `mutation ($name: String!) {
        first: updateProfile(input: { displayName: "In between" }) { user { displayName } }
        second: updateProfile(input: { displayName: $name }) { user { displayName } }
      }`,
      variables: { name: me.displayName },
    },
    "a sign-in of nobody": {
      query: `mutation ($input: SignInInput!) { signIn(input: $input) { accessToken user { id } ${errors} } }`,
      variables: () => ({ input: { email: `nobody-${fresh()}@example.com`, password: "not the password" } }),
      as: [undefined],
    },
    "a sign-up with a password that everybody uses": {
      query: `mutation ($input: SignUpInput!) { signUp(input: $input) { accessToken user { id } ${errors} } }`,
      variables: () => ({ input: { email: `new-${fresh()}@example.com`, password: "password", displayName: "New" } }),
      as: [undefined],
    },
    "an account for an address that is taken": {
      query: `mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } ${errors} } }`,
      variables: { input: { email: "viewer@example.com", displayName: "Again", role: "VIEWER" } },
    },
    "accounts are made by administrators": {
      query: `mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id } ${errors} } }`,
      variables: { input: { email: "x@example.com", displayName: "X", role: "ADMIN" } },
      as: ["MANAGER", "EDITOR"],
      codes: ["FORBIDDEN"],
    },
    "who is nobody changes nothing": {
      query: `mutation { updateProfile(input: { displayName: "Nobody" }) { user { id } ${errors} } }`,
      as: [undefined],
      codes: ["UNAUTHENTICATED"],
    },
  };
}

/** What cannot be answered, and why. */
function refusals({ users, cursors }) {
  return {
    "a page that is too long": { query: "{ users(first: 101) { nodes { id } } }", codes: ["BAD_USER_INPUT"] },
    "an id that is none, beside a field that is answered": {
      query: '{ me { id } user(id: "x") { id } }',
      codes: ["BAD_USER_INPUT"],
    },
    "an id that is none among good ones": {
      query: "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }",
      variables: { ids: [users[0].id, "x", users[1].id] },
      codes: ["BAD_USER_INPUT"],
    },
    "a cursor of another list": {
      query: "query ($after: String!) { forms(first: 2, after: $after) { nodes { id } } me { id } }",
      variables: { after: cursors.users },
      codes: ["BAD_CURSOR"],
    },
    "a filter that would tell what is hidden": {
      query: "{ users(filter: { isActive: false }) { totalCount } me { displayName } }",
      as: ["COLLECTOR", "VIEWER"],
      codes: ["FORBIDDEN"],
    },
    "a time that is none": {
      query: 'query ($from: DateTime) { users(filter: { createdAt: { from: $from } }) { totalCount } }',
      variables: { from: "yesterday" },
      codes: ["BAD_USER_INPUT"],
    },
    "a variable of another type": {
      query: "query ($first: Int) { users(first: $first) { totalCount } }",
      variables: { first: "three" },
      codes: ["BAD_USER_INPUT"],
    },
    "a variable that is missing": {
      query: "query ($id: ID!) { user(id: $id) { id } }",
      codes: ["BAD_USER_INPUT"],
    },
    "both fields of a one-of input": {
      query: 'query ($lookup: UserLookup!) { userBy(lookup: $lookup) { id } }',
      variables: { lookup: { id: users[0].id, email: users[0].email } },
      codes: ["BAD_USER_INPUT"],
    },
    "more than may be loaded": {
      query: "{ users(first: 100) { nodes { sessions(first: 100) { nodes { locations(first: 100) { totalCount nodes { id } } } } } } }",
      codes: ["COST_LIMIT"],
    },
    "a field that is not there": { query: "{ nope }", codes: ["GRAPHQL_VALIDATION_FAILED"] },
    "no GraphQL": { query: "{ me {", codes: ["GRAPHQL_PARSE_FAILED"] },
    "an operation that the document does not have": {
      query: "query A { me { id } } query B { me { displayName } }",
      operationName: "C",
      codes: ["OPERATION_RESOLUTION_FAILURE"],
    },
    "one of two operations": {
      query: "query A { me { id } } query B { me { displayName } }",
      operationName: "B",
    },
  };
}
