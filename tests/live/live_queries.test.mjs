// Live queries as clients of other makers hear them: the answer, and again when it has changed, as a whole or as a patch; after the
// server was killed; and what ends them. Not here: which writes change an answer (the Rust tests, `live_queries_fuzz`), what they leave
// behind (`live_queries_leaks`).
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client/core/index.js";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";
import { getMainDefinition } from "@apollo/client/utilities/index.js";
import { applyLiveQueryJSONPatch } from "@n1ru4l/graphql-live-query-patch-json-patch";
import { Client as UrqlClient, cacheExchange, createRequest, fetchExchange, makeErrorResult, makeResult, stringifyDocument } from "@urql/core";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import { filter, make, merge, mergeMap, pipe, share, takeUntil } from "wonka";
import WebSocket from "ws";

import { multipartEvents, openForm, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const HERE = "query @live(throttle: 50) { me { lastLocation { latitude } } }";

// Apollo Client's link asks for it, also where another one is used.
globalThis.WebSocket ??= WebSocket;

let xp;
// A list of 1,000 is dear, and takes long on a busy machine.
before(async () => (xp = await start({ XP_GRAPH_MAX_COST: "100000", XP_HTTP_REQUEST_TIMEOUT: "30s" })));
after(async () => assert.equal(await xp.stop(), 0));

const headers = (token) => ({ authorization: `Bearer ${token}` });

const CLIENTS = {
  websocket: (token) => {
    const client = createWsClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams: headers(token), retryAttempts: 0 });
    return [client.iterate({ query: HERE }), () => client.dispose()];
  },
  sse: (token) => {
    const client = createSseClient({ url: xp.url, headers: headers(token), retryAttempts: 0 });
    return [client.iterate({ query: HERE }), () => client.dispose()];
  },
  multipart: (token) => {
    const control = new AbortController();
    async function* answers() {
      const asked = { "content-type": "application/json", accept: 'multipart/mixed;subscriptionSpec="1.0"', ...headers(token) };
      const response = await fetch(xp.url, { method: "POST", headers: asked, body: JSON.stringify({ query: HERE }), signal: control.signal });
      for await (const { payload } of multipartEvents(response)) if (payload) yield payload;
    }
    return [answers(), () => control.abort()];
  },
};

for (const [transport, listen] of Object.entries(CLIENTS)) {
  test(`a live query is answered at once, and again when it has changed (${transport})`, async () => {
    const { token } = await xp.signIn("COLLECTOR");
    await xp.goTo(token, 10.5);
    const [answers, close] = listen(token);
    const next = async () => (await answers.next()).value.data.me.lastLocation.latitude;
    assert.equal(await next(), 10.5);
    for (const latitude of [11.5, 12.5, 13.5]) {
      await xp.goTo(token, latitude);
      assert.equal(await next(), latitude);
    }
    close();
    await xp.expectSubscriptions(transport, 0);
  });
}

// --- libraries with a cache --------------------------------------------------------------------------------------

/** What goes over the WebSocket: subscriptions, and queries that are live. */
function isStream(query) {
  const { operation, directives } = getMainDefinition(query);
  return operation === "subscription" || Boolean(directives?.some(({ name }) => name.value === "live"));
}

function apolloClient(socket, http) {
  const link = ApolloLink.split(({ query }) => isStream(query), new GraphQLWsLink(socket), http);
  return new ApolloClient({ link, cache: new InMemoryCache() });
}

/** Stands in front of urql's cache. Each answer is whole, and `hasNext` says that another one may follow. */
const liveExchange = (socket) => ({ forward }) => (operations) => {
  const all = pipe(operations, share);
  const isLive = ({ kind, query }) => kind === "query" && isStream(query);
  const answers = (operation) => make(({ next, complete }) => {
    const { query, variables } = operation;
    const failed = (error) => (Array.isArray(error) ? makeResult(operation, { errors: error }) : makeErrorResult(operation, error));
    return socket.subscribe({ query: stringifyDocument(query), variables }, {
      next: (answer) => next(makeResult(operation, { ...answer, hasNext: true })),
      error: (error) => (next(failed(error)), complete()),
      complete,
    });
  });
  const untilLeft = (operation) => takeUntil(pipe(all, filter(({ key }) => key === operation.key)));
  const live = pipe(all, filter(isLive), mergeMap((operation) => pipe(answers(operation), untilLeft(operation))));
  return merge([live, pipe(all, filter((operation) => !isLive(operation)), forward)]);
};

function urqlClient(socket, options) {
  return new UrqlClient({ ...options, exchanges: [liveExchange(socket), cacheExchange, fetchExchange] });
}

const FORM = "query Form($id: ID!) @live(throttle: 50) { form(id: $id) { id title submissionCount } }";
const ONCE = "query Once($id: ID!) { form(id: $id) { id title submissionCount } }";
const RENAME = "mutation Rename($id: ID!, $title: String!) { updateForm(input: { id: $id, title: $title }) { form { id title } } }";

/** A library with a cache over a socket and HTTP: `watch` and `ask` take `sink.next` of data. */
const LIBRARIES = {
  "Apollo Client": (socket, token) => {
    const client = apolloClient(socket, new HttpLink({ uri: xp.url, headers: headers(token) }));
    const said = ({ data, errors }, sink) => (errors ? sink.odd(errors) : sink.next(data));
    return {
      watch(query, variables, sink) {
        const watched = client.watchQuery({ query: gql(query), variables, fetchPolicy: "cache-and-network", errorPolicy: "all" });
        const heard = watched.subscribe({ next: (result) => said(result, sink), error: sink.odd });
        return () => heard.unsubscribe();
      },
      ask: async (query, variables) => (await client.query({ query: gql(query), variables, fetchPolicy: "network-only" })).data,
      change: async (mutation, variables) => (await client.mutate({ mutation: gql(mutation), variables })).data,
      stop: () => client.stop(),
    };
  },
  urql: (socket, token) => {
    const client = urqlClient(socket, { url: xp.url, preferGetMethod: false, fetchOptions: { headers: headers(token) } });
    return {
      watch(query, variables, sink) {
        const heard = client.query(query, variables);
        const { unsubscribe } = heard.subscribe(({ data, error }) => (error ? sink.odd(error) : sink.next(data)));
        return unsubscribe;
      },
      ask: async (query, variables) => (await client.query(query, variables, { requestPolicy: "network-only" }).toPromise()).data,
      change: async (mutation, variables) => (await client.mutation(mutation, variables).toPromise()).data,
      stop: () => {},
    };
  },
};

/** What is heard, and what was heard that is no data. */
function sink() {
  const heard = { all: [], odd: [] };
  heard.next = (data) => heard.all.push(data);
  heard.odd = (error) => heard.all.push({ error });
  return heard;
}

function socketOf(token, options = {}) {
  return createWsClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams: headers(token), retryAttempts: 0, ...options });
}

/** By tries, not by a clock, which goes on while the machine holds this process up. */
async function until(holds, what) {
  for (let tries = 0; !(await holds()); tries++) {
    assert.ok(tries < 4_500, `${what()}`);
    await pause(20);
  }
}

const form = async () => {
  const { token } = await xp.signIn("EDITOR");
  return { token, collector: (await xp.signIn("COLLECTOR")).token, id: await openForm(xp, token) };
};

for (const [name, library] of Object.entries(LIBRARIES)) {
  test(`each answer replaces the one before, for everybody who reads it, until it is left (${name})`, async () => {
    const { token, collector, id } = await form();
    const socket = socketOf(token);
    const client = library(socket, token);
    const [first, second] = [sink(), sink()];
    const told = ({ all }) => JSON.stringify(all.at(-1)?.form, ["title", "submissionCount"]);
    const bothTell = (title, submissionCount) => {
      const expected = JSON.stringify({ title, submissionCount });
      const say = () => `${expected}: ${JSON.stringify([first.all, second.all])}`;
      return until(() => told(first) === expected && told(second) === expected, say);
    };
    const leave = [client.watch(FORM, { id }, first), client.watch(FORM, { id }, second)];
    await bothTell("Numbers", 0);
    await xp.expectSubscriptions("websocket", 1);
    await submit(xp, collector, id, 1);
    await bothTell("Numbers", 1);
    // Others of the same library go by HTTP, and end nothing.
    assert.equal((await client.ask(ONCE, { id })).form.submissionCount, 1);
    await client.change(RENAME, { id, title: "Renamed" });
    await bothTell("Renamed", 1);
    await submit(xp, collector, id, 2);
    await bothTell("Renamed", 2);
    await xp.expectSubscriptions("websocket", 1);
    leave[0]();
    await submit(xp, collector, id, 3);
    const expected = JSON.stringify({ title: "Renamed", submissionCount: 3 });
    await until(() => told(second) === expected, () => JSON.stringify(second.all));
    leave[1]();
    await xp.expectSubscriptions("websocket", 0);
    assert.ok([...first.all, ...second.all].every(({ error }) => !error), JSON.stringify([first.all, second.all]));
    // Who comes again is live again, whatever the cache has.
    const third = sink();
    const leaveAgain = client.watch(FORM, { id }, third);
    await until(() => told(third) === expected, () => JSON.stringify(third.all));
    await submit(xp, collector, id, 4);
    await until(() => third.all.at(-1).form.submissionCount === 4, () => JSON.stringify(third.all));
    leaveAgain();
    client.stop();
    await socket.dispose();
    await xp.expectSubscriptions("websocket", 0);
  });
}

/** Says whether it has not settled after a while. */
const isOpen = (promise) => Promise.race([promise.then(() => false, () => false), pause(1_000).then(() => true)]);

test("what Apollo Client must not be asked for: it misses changes, or keeps streams open", async () => {
  const { token, collector, id } = await form();
  const http = new HttpLink({ uri: xp.url, headers: headers(token) });
  const live = { query: gql(FORM), variables: { id } };
  // Each use has a socket of its own, which is gone behind it.
  const streams = (count) => xp.expectSubscriptions("websocket", count);
  const use = async (work) => {
    const socket = socketOf(token);
    const client = apolloClient(socket, http);
    await work(client);
    client.stop();
    await socket.terminate();
    await streams(0);
  };
  await use(async (client) => {
    // A promise waits for the end of what has none.
    assert.ok(await isOpen(client.query({ ...live, fetchPolicy: "network-only" })));
    await streams(1);
  });
  await use(async (client) => {
    // Where the cache has all of it, nothing is sent.
    await client.query({ query: gql(ONCE), variables: { id } });
    const heard = sink();
    const watching = client.watchQuery({ ...live, fetchPolicy: "cache-first" }).subscribe(heard);
    await until(() => heard.all.length > 0, () => "nothing is heard");
    assert.equal(await xp.subscriptions("websocket"), 0);
    await submit(xp, collector, id, 1);
    await pause(500);
    assert.deepEqual(heard.all.map(({ data }) => data.form.submissionCount), [0]);
    watching.unsubscribe();
  });
  await use(async (client) => {
    // Fetching again opens another stream, which is not closed with the first.
    const heard = sink();
    const watched = client.watchQuery({ ...live, fetchPolicy: "cache-and-network", notifyOnNetworkStatusChange: true });
    const watching = watched.subscribe(heard);
    await until(() => heard.all.at(-1)?.data.form.submissionCount === 1, () => JSON.stringify(heard.all));
    assert.ok(await isOpen(watched.refetch()));
    await streams(2);
    assert.equal(heard.all.at(-1).loading, false);
    assert.ok(await isOpen(watched.fetchMore({ variables: { id }, updateQuery: (before) => before })));
    await streams(3);
    // So does a second one, where the first has its answer.
    const second = client.watchQuery({ ...live, fetchPolicy: "cache-and-network" }).subscribe(sink());
    await streams(4);
    second.unsubscribe();
    await streams(3);
    watching.unsubscribe();
    await streams(2);
  });
  await use(async (client) => {
    // Errors of a field are the end, but where it is asked to go on.
    const query = gql(`query @live(throttle: 50) { me { lastLocation { latitude } } node(id: "not an id") { id } }`);
    const [ended, goes] = [sink(), sink()];
    client.watchQuery({ query, fetchPolicy: "network-only" }).subscribe({ next: ended.next, error: ended.odd });
    await until(() => ended.all.at(-1)?.error, () => JSON.stringify(ended.all));
    await streams(0);
    client.watchQuery({ query, fetchPolicy: "network-only", errorPolicy: "all" }).subscribe({ next: goes.next, error: goes.odd });
    for (const latitude of [21.5, 22.5]) {
      await xp.goTo(token, latitude);
      await until(() => goes.all.at(-1)?.data?.me.lastLocation?.latitude === latitude, () => JSON.stringify(goes.all));
    }
  });
});

// --- patches -----------------------------------------------------------------------------------------------------

const PATCHED = { jsonPatch: true };

/** The answers, of which only the changes travel; `told` gets what came. */
function patched(client, request, told = () => {}) {
  const answers = client.iterate({ ...request, extensions: PATCHED });
  const messages = (async function* () {
    for await (const message of answers) {
      told(message);
      yield message;
    }
  })();
  return applyLiveQueryJSONPatch(messages);
}

test("patches lead to each answer, by the package that makes and reads them elsewhere", async () => {
  const { token, collector, id } = await form();
  for (const number of [1, 2, 3]) await submit(xp, collector, id, number);
  const query = "query($id: ID!) @live(throttle: 50) { form(id: $id) { title submissionCount submissions(first: 50) { nodes { id data } } } }";
  const client = socketOf(token);
  const came = [];
  const answers = patched(client, { query, variables: { id } }, (message) => came.push(message));
  const next = async () => (await answers.next()).value;
  assert.deepEqual((await next()).data, await xp.ask(token, query, { id }));
  for (const number of [4, 5, 6]) {
    await submit(xp, collector, id, number);
    const { data } = await next();
    assert.deepEqual(data, await xp.ask(token, query, { id }));
    assert.equal(data.form.submissionCount, number);
  }
  assert.deepEqual(came.map(({ revision }) => revision), [1, 2, 3, 4]);
  assert.ok(came.slice(1).every(({ patch, data }) => patch && !data), JSON.stringify(came));
  client.dispose();
  await xp.expectSubscriptions("websocket", 0);
});

test("of a long list little travels when one of it changes", async () => {
  const { token, collector, id } = await form();
  const numbers = Array.from({ length: 1_000 }, (_, number) => ({ formId: id, data: { number } }));
  const many = "mutation($input: CreateSubmissionsInput!) { createSubmissions(input: $input) { results { submission { id } } } }";
  for (let from = 0; from < numbers.length; from += 50) {
    await xp.ask(collector, many, { input: { submissions: numbers.slice(from, from + 50) } });
  }
  const page = (after) => xp.ask(token, "query($id: ID!, $after: String) { form(id: $id) { submissions(first: 100, after: $after) { pageInfo { endCursor } } } }", { id, after });
  const parts = [];
  for (let after = null; parts.length < 10; ) {
    parts.push(`p${parts.length}: submissions(first: 100${after ? `, after: "${after}"` : ""}) { nodes { ...Row } }`);
    after = (await page(after)).form.submissions.pageInfo.endCursor;
  }
  const fields = "fragment Row on Submission { id createdAt data user { displayName } }";
  const query = `query($id: ID!) @live(throttle: 50) { form(id: $id) { title ${parts.join(" ")} } } ${fields}`;
  const client = socketOf(token);
  const came = [];
  const answers = patched(client, { query, variables: { id } }, (message) => came.push(message));
  const { value: first } = await answers.next();
  assert.equal(Object.values(first.data.form).flatMap((part) => part.nodes ?? []).length, 1_000);
  const bytes = () => Buffer.byteLength(JSON.stringify(came.at(-1)));
  const whole = bytes();
  const change = async (work) => {
    await work();
    const { value } = await answers.next();
    assert.deepEqual(value.data, await xp.ask(token, query, { id }));
    return bytes();
  };
  const title = await change(() => xp.ask(token, RENAME, { id, title: "Another title" }));
  const name = await change(() => xp.ask(collector, 'mutation { updateProfile(input: { displayName: "Another" }) { user { id } } }'));
  const front = await change(() => submit(xp, collector, id, 1_001));
  assert.ok(title < 200 && front < whole / 4 && name < whole, `${title}, ${front}, ${name} of ${whole} bytes`);
  console.log(`bytes: ${whole} of 1,000 rows as a whole; patches: ${title} (a title), ${name} (a name in each), ${front} (one in front)`);
  client.dispose();
});

// --- coming back, and ends ---------------------------------------------------------------------------------------

const COMING_BACK = {
  "graphql-ws": (token, options) => socketOf(token, options),
  "graphql-sse": (token, { on, ...options }) => createSseClient({ url: xp.url, headers: headers(token), ...options }),
};

for (const [name, connect] of Object.entries(COMING_BACK)) {
  test(`after the server was killed the next answer is whole and has what was written meanwhile (${name})`, async () => {
    const { token, collector, id } = await form();
    const query = "query($id: ID!) @live(throttle: 50) { form(id: $id) { title submissionCount submissions(first: 50) { nodes { data } } } }";
    let written;
    const retry = async () => {
      await written;
      await pause(50);
    };
    const client = connect(token, { retryAttempts: Infinity, shouldRetry: () => true, retryWait: retry, retry });
    const came = [];
    const answers = patched(client, { query, variables: { id } }, (message) => came.push(message));
    const next = async () => (await answers.next()).value.data.form.submissionCount;
    assert.equal(await next(), 0);
    await submit(xp, collector, id, 1);
    assert.equal(await next(), 1);
    for (let count = 2; count <= 5; count++) {
      written = (async () => {
        await xp.end("SIGKILL");
        await xp.startAgain();
        await submit(xp, collector, id, count);
      })();
      assert.equal(await next(), count);
      await written;
      assert.equal(came.at(-1).revision, 1, "it is whole");
    }
    await submit(xp, collector, id, 6);
    assert.equal(await next(), 6);
    assert.ok(came.at(-1).patch, "and goes on by patches");
    client.dispose();
  });
}

/** An account of its own, and its session. */
async function account(role) {
  const { token: admin } = await xp.signIn("ADMIN");
  const input = { email: `live-${randomUUID()}@example.com`, password: "a long sentence to remember", displayName: "Live", role };
  await xp.ask(admin, "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id } } }", { input });
  const signIn = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken user { id } session { id } } }";
  const { email, password } = input;
  const { accessToken: token, user, session } = (await xp.ask(undefined, signIn, { input: { email, password } })).signIn;
  return { admin, token, user: user.id, session: session.id };
}

const ENDS = {
  "the account gets another role": ({ admin, user }) =>
    xp.ask(admin, "mutation($id: ID!) { updateUser(input: { id: $id, role: VIEWER }) { user { role } } }", { id: user }),
  "the session is revoked": ({ token, session }) => xp.endSession(token, session),
};

for (const [why, end] of Object.entries(ENDS)) {
  test(`a live query ends where ${why}`, async () => {
    const who = await account("EDITOR");
    const query = "query @live(throttle: 50) { me { displayName role } }";
    const socket = socketOf(who.token, { retryAttempts: 5 });
    const overSocket = socket.iterate({ query });
    const sse = createSseClient({ url: xp.url, headers: headers(who.token), retryAttempts: 0 });
    const overHttp = sse.iterate({ query });
    for (const answers of [overSocket, overHttp]) assert.equal((await answers.next()).value.data.me.role, "EDITOR");
    await end(who);
    const rest = async (answers) => {
      const all = [];
      for (;;) {
        const { value, done } = await answers.next();
        if (done) return all;
        all.push(value);
      }
    };
    await assert.rejects(rest(overSocket), ({ code }) => code === 4401);
    const told = await rest(overHttp);
    assert.equal(told.at(-1).errors[0].extensions.code, "UNAUTHENTICATED", JSON.stringify(told));
    assert.ok(told.slice(0, -1).every(({ data }) => data?.me), JSON.stringify(told));
    for (const transport of ["websocket", "sse"]) await xp.expectSubscriptions(transport, 0);
  });
}

test("live queries count as subscriptions of their account", async (t) => {
  const other = await start({ XP_HTTP_MAX_SUBSCRIPTIONS_PER_ACCOUNT: "3" });
  t.after(() => other.end("SIGKILL"));
  const [{ token }, { token: collector }] = [await other.signIn("EDITOR"), await other.signIn("COLLECTOR")];
  const query = "query @live { me { displayName } }";
  const socket = socketOf(token, { url: other.socketUrl });
  const open = async (client) => {
    const answers = client.iterate({ query });
    assert.ok((await answers.next()).value.data.me.displayName);
    return answers;
  };
  const sse = createSseClient({ url: other.url, headers: headers(token), retryAttempts: 0 });
  const all = [await open(socket), await open(socket), await open(sse)];
  await assert.rejects(socket.iterate({ query }).next(), ([{ extensions }]) => extensions.code === "RATE_LIMITED");
  await open(socketOf(collector, { url: other.socketUrl }));
  await all[0].return();
  await other.expectSubscriptions("websocket", 2);
  await open(socket);
});

test("a query that is not asked for on a stream is answered once", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  assert.equal(typeof (await xp.ask(token, HERE)).me.lastLocation.latitude, "number");
});
