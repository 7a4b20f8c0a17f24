// Writes of many kinds by several accounts, at random, against live queries of others, some of which get patches: after each burst every
// one shows what is answered to the same query asked now. XP_LIVE_WRITES says how many writes there are, XP_SEED repeats their order.
// Not here: every query of the corpus (the Rust tests).
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { applyLiveQueryJSONPatch } from "@n1ru4l/graphql-live-query-patch-json-patch";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { openForm } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const WRITES = Number(process.env.XP_LIVE_WRITES ?? 200);
const SEED = Number(process.env.XP_SEED ?? Date.now() % 1_000_000);
/** How long a change may take on a busy machine, milliseconds. */
const PATIENCE = 90_000;
const MOST_AT_ONCE = 8;

const QUERIES = {
  me: "query($form: ID!) @live(throttle: 50) { me { displayName role isActive lastLocation { latitude } sessions(first: 50) { totalCount nodes { id name isActive } } } form(id: $form) { id } }",
  form: "query($form: ID!) @live(throttle: 50) { form(id: $form) { title status version submissionCount submissions(first: 20) { totalCount nodes { id data user { displayName } location { latitude } } } } }",
  forms: "query($form: ID!) @live(throttle: 50) { forms(first: 30) { totalCount nodes { id title status submissionCount owner { displayName } } } form(id: $form) { updatedAt } }",
  users: "query($form: ID!) @live(throttle: 200) { users(first: 100) { totalCount nodes { id displayName role isActive } } form(id: $form) { id } }",
  places: "query($form: ID!) @live(throttle: 50) { latestLocations(first: 50) { nodes { latitude longitude user { displayName } } } activityLogs(first: 10) { nodes { id actionType } } form(id: $form) { id } }",
};
const ROLES = ["ADMIN", "EDITOR", "COLLECTOR", "VIEWER"];
/** Those that have something to write beside their own profile. */
const WRITERS = ROLES.slice(0, 3);

/** The same numbers between 0 and 1 for the same seed (mulberry32). */
function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One write of each kind; what is refused in `userErrors` has written nothing, which is a case, too. */
const KINDS = {
  async submit({ ask, pick, who, draw }) {
    const input = { formId: pick(who.forms), data: { number: Math.floor(draw() * 1_000) } };
    if (draw() < 0.5) input.location = { timestamp: new Date().toISOString(), latitude: draw() * 80, longitude: draw() * 80 };
    await ask(pick(WRITERS), "createSubmission(input: $input) { userErrors { code } }", "CreateSubmission", input);
  },
  async submitMany({ ask, pick, who, draw }) {
    const submissions = Array.from({ length: 5 }, (_, number) => ({ formId: pick(who.forms), data: { number } }));
    await ask(draw() < 0.5 ? "COLLECTOR" : "EDITOR", "createSubmissions(input: $input) { results { userErrors { code } } }", "CreateSubmissions", { submissions });
  },
  rename: ({ ask, pick, who, draw }) =>
    ask(pick(["ADMIN", "EDITOR"]), "updateForm(input: $input) { userErrors { code } }", "UpdateForm", { id: pick(who.forms), title: `Title ${Math.floor(draw() * 50)}` }),
  setStatus: ({ ask, pick, who }) =>
    ask("EDITOR", "setFormStatus(input: $input) { userErrors { code } }", "SetFormStatus", { id: pick(who.forms), status: pick(["OPEN", "CLOSED", "OPEN"]) }),
  async makeForm({ ask, pick }) {
    await ask(pick(["ADMIN", "EDITOR"]), "createForm(input: $input) { form { id } userErrors { code } }", "CreateForm", {
      title: "Another",
      definition: { schema: 1, fields: [] },
    });
  },
  async goTo({ ask, pick, draw }) {
    const points = Array.from({ length: 1 + Math.floor(draw() * 3) }, () => {
      const timestamp = new Date(Date.now() - Math.floor(draw() * 60_000)).toISOString();
      return { timestamp, latitude: draw() * 80, longitude: draw() * 80 };
    });
    await ask(pick(WRITERS), "recordLocations(input: $input) { acceptedCount }", "RecordLocations", { points });
  },
  profile: ({ ask, pick, draw }) =>
    ask(pick(ROLES), "updateProfile(input: $input) { userErrors { code } }", "UpdateProfile", { displayName: `Name ${Math.floor(draw() * 50)}` }),
  async signIn({ xp, pick, who }) {
    const { email, password } = who.accounts[pick(ROLES)];
    const query = "mutation($input: SignInInput!) { signIn(input: $input) { session { id } userErrors { code } } }";
    // An account may sign in so often only.
    const tooOften = (error) => (assert.match(error.message, /RATE_LIMITED/), { signIn: {} });
    const { signIn } = await xp.ask(undefined, query, { input: { email, password } }).catch(tooOften);
    if (signIn.session) who.sessions.push(signIn.session.id);
  },
  async endSession({ ask, who, pick }) {
    if (who.sessions.length === 0) return;
    const [ended] = who.sessions.splice(Math.floor(who.sessions.length / 2), 1);
    await ask("ADMIN", "revokeSession(input: $input) { userErrors { code } }", "RevokeSession", { id: ended });
  },
  async renameSession({ ask, who, pick, draw }) {
    const role = pick(ROLES);
    const id = who.accounts[role].session;
    await ask(role, "renameSession(input: $input) { userErrors { code } }", "RenameSession", { id, name: `Session ${Math.floor(draw() * 50)}` });
  },
  makeUser: ({ ask, pick }) =>
    ask("ADMIN", "createUser(input: $input) { userErrors { code } }", "CreateUser", newAccount(pick(ROLES))),
  async changeUser({ ask, who, draw }) {
    const input = { id: who.other, isActive: draw() < 0.5, displayName: `Other ${Math.floor(draw() * 50)}` };
    await ask("ADMIN", "updateUser(input: $input) { userErrors { code } }", "UpdateUser", input);
  },
};

function newAccount(role) {
  return { email: `live-${randomUUID()}@example.com`, password: "a long sentence to remember", displayName: `A ${role}`, role };
}

/** Accounts of the test's own, forms, and an account that only others change. */
async function people(xp) {
  const { token: admin } = await xp.signIn("ADMIN");
  const who = { accounts: {}, sessions: [], forms: [] };
  const make = "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } } }";
  const signIn = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken session { id } } }";
  for (const role of ROLES) {
    const { email, password, ...rest } = newAccount(role);
    await xp.ask(admin, make, { input: { email, password, ...rest } });
    const signedIn = (await xp.ask(undefined, signIn, { input: { email, password } })).signIn;
    who.accounts[role] = { email, password, token: signedIn.accessToken, session: signedIn.session.id };
  }
  who.other = (await xp.ask(admin, make, { input: newAccount("VIEWER") })).createUser.user.id;
  for (let count = 0; count < 3; count++) who.forms.push(await openForm(xp, who.accounts.EDITOR.token));
  return who;
}

/** A live query under way: its last state, when that came, and how many messages of which kind there were. */
function listen(xp, role, token, name, form, place) {
  const [hasPatches, isSse] = [place % 2 === 0, place % 3 === 0];
  const headers = { authorization: `Bearer ${token}` };
  const client = isSse
    ? createSseClient({ url: xp.url, headers, retryAttempts: 0 })
    : createWsClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams: headers, retryAttempts: 0 });
  const query = QUERIES[name];
  const live = { role, token, name, query, form, title: `${role} ${name}${hasPatches ? ", patches" : ""}${isSse ? ", SSE" : ""}` };
  Object.assign(live, { state: undefined, at: 0, whole: 0, patches: 0, isOver: false, leave: () => client.dispose() });
  async function* counted() {
    const extensions = hasPatches ? { jsonPatch: true } : {};
    for await (const message of client.iterate({ query, variables: { form }, extensions })) {
      live[message.patch ? "patches" : "whole"] += 1;
      yield message;
    }
  }
  const read = async () => {
    for await (const { data, errors } of hasPatches ? applyLiveQueryJSONPatch(counted()) : counted()) {
      assert.equal(errors, undefined, JSON.stringify(errors));
      Object.assign(live, { state: structuredClone(data), at: performance.now() });
    }
  };
  read().catch((error) => (live.failure = error)).finally(() => (live.isOver = true));
  return live;
}

const once = (query) => query.replace(/ @live\(throttle: \d+\)/, "");

/** Waits until it shows what is answered now. */
async function isFresh(xp, live) {
  let fresh;
  for (let waited = 0; ; waited += 20) {
    assert.ok(!live.isOver, `${live.title} has ended: ${live.failure?.stack}; seed ${SEED}`);
    if (waited % 2_000 === 0) fresh = await xp.ask(live.token, once(live.query), { form: live.form });
    if (isDeepStrictEqual(live.state, fresh)) return;
    if (waited >= PATIENCE) assert.deepEqual(live.state, fresh, `${live.title}; seed ${SEED}`);
    await pause(20);
  }
}

test(`after each of ${WRITES} writes every live query shows what is answered now`, async (t) => {
  // On a busy machine.
  const xp = await start({ XP_HTTP_REQUEST_TIMEOUT: "30s" });
  t.after(() => xp.end("SIGKILL"));
  const who = await people(xp);
  const draw = randomNumbers(SEED);
  const pick = (list) => list[Math.floor(draw() * list.length)];
  const ask = (role, write, input, value) =>
    xp.ask(who.accounts[role].token, `mutation($input: ${input}Input!) { ${write} }`, { input: value });
  const all = ROLES.flatMap((role, row) =>
    Object.keys(QUERIES).map((name, column) => listen(xp, role, who.accounts[role].token, name, who.forms[column % 3], row + column)),
  );
  assert.equal(all.length, 20);
  await Promise.all(all.map((live) => isFresh(xp, live)));

  const delays = [];
  const counts = {};
  let done = 0;
  let bursts = 0;
  while (done < WRITES) {
    const before = all.map(({ state }) => state);
    const length = Math.min(1 + Math.floor(draw() ** 2 * MOST_AT_ONCE), WRITES - done);
    const kinds = Array.from({ length }, () => pick(Object.keys(KINDS)));
    // What each write draws does not depend on which of them is the first to be answered.
    const writes = kinds.map((kind) => {
      const own = randomNumbers(Math.floor(draw() * 2 ** 32));
      return [kind, { xp, ask, who, draw: own, pick: (list) => list[Math.floor(own() * list.length)] }];
    });
    await Promise.all(writes.map(([kind, world]) => ((counts[kind] = (counts[kind] ?? 0) + 1), KINDS[kind](world))));
    const written = performance.now();
    await Promise.all(all.map((live) => isFresh(xp, live)));
    for (const [index, live] of all.entries()) {
      if (!isDeepStrictEqual(live.state, before[index])) delays.push(Math.max(0, live.at - written));
    }
    done += length;
    bursts += 1;
    // Half of them come at once, the others after what the last has made is told.
    if (draw() < 0.5) await pause(draw() * 300);
  }
  delays.sort((a, b) => a - b);
  const share = (part) => Math.round(delays[Math.min(delays.length - 1, Math.floor(delays.length * part))]);
  const sum = (key) => all.reduce((total, live) => total + live[key], 0);
  console.log(
    `seed ${SEED}: ${done} writes in ${bursts} bursts, ${delays.length} changed answers by ${sum("whole")} whole ones and ${sum("patches")} patches;`,
    `told after ${share(0.5)} ms (median), ${share(0.99)} ms (99 %), ${share(1)} ms (longest)`,
    JSON.stringify(counts),
  );
  assert.ok(delays.length >= WRITES && sum("patches") > 0, `${delays.length} changes, ${sum("patches")} patches`);
  for (const { leave } of all) await leave();
  for (const transport of ["websocket", "sse"]) await xp.expectSubscriptions(transport, 0);
  assert.equal(await xp.stop(), 0);
});
