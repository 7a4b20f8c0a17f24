// Subscriptions that lose nothing: clients of other makers come back after their last event, to any of two servers on one database
// with a Redis between them, while connections, servers, Redis and tokens end under a load of writes. XP_KILLS says how many ends there
// are, XP_RESUME_DATABASE on which empty database; many of them are on a PostgreSQL of the test's own where its programs are found.
// XP_SEED repeats an order of ends. Not here: tokens that are refused (`resume_refused`), what streams leave behind (`resume_leaks`).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { inspect } from "node:util";

import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client/core/index.js";
import { setContext } from "@apollo/client/link/context/index.js";
import { RetryLink } from "@apollo/client/link/retry/index.js";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";
import { Client as UrqlClient, createRequest, subscriptionExchange } from "@urql/core";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { freePort, scratch } from "../processes.mjs";
import { startPostgres } from "./postgres.mjs";
import { startProxy } from "./proxy.mjs";
import { multipartEvents, openForm, resumeToken, sseEvents } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const CHANGED = "subscription Changed($form: ID!) { submissionChanged(formId: $form) { id data } }";
const SUBMIT = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } userErrors { code } } }";

const DEFAULT_KILLS = 25;
const KILLS = Number(process.env.XP_KILLS ?? DEFAULT_KILLS);
const SEED = Number(process.env.XP_SEED ?? Date.now() % 1_000_000);
/** How long anything may take on a busy machine, milliseconds. */
const PATIENCE = 90_000;
const ASK_EVERY = 20;
const SEND_EVERY = 50;
const SEND_WITHIN = 10_000;
const WRITERS = 3;
/** A token that ends while its stream is open, and one that outlives the test. */
const SHORT_SECONDS = 2;
const LONG_SECONDS = 24 * 60 * 60;
/** In this relation, each group of so many in another order. */
const KINDS = ["cut", "cut", "cut", "silence", "token", "SIGKILL", "SIGKILL", "SIGTERM", "Redis killed", "Redis emptied"];

// Apollo Client's link asks for it, also where another one is used.
globalThis.WebSocket ??= WebSocket;

/** How long a client waits before it comes back; its own default is up to half a minute after some failures. */
const retryWait = () => pause(20 + Math.random() * 200);

/** For graphql-ws and graphql-sse, which send the request at each connect as it is then: after the last event that was heard. */
function subscribe(client, request, sink) {
  const extensions = { ...request.extensions };
  const next = (result) => {
    if (result.extensions?.resumeToken) extensions.resumeAfter = result.extensions.resumeToken;
    sink.next(result);
  };
  const { error, complete } = { error: (error) => sink.error(error), complete: () => sink.complete() };
  return client.subscribe({ ...request, extensions }, { next, error, complete });
}

/** The same as a link of Apollo Client, in front of `GraphQLWsLink`, or of `RetryLink` and `HttpLink`. */
const resumeLink = new ApolloLink((operation, forward) =>
  forward(operation).map((result) => {
    const { resumeToken } = result.extensions ?? {};
    if (resumeToken) operation.extensions.resumeAfter = resumeToken;
    return result;
  }),
);

/** A client of each kind, which begins after the token in `extensions`; what it hears goes to `sink`. */
const CLIENTS = {
  "graphql-ws": ({ url, token, variables, extensions, sink }) => {
    const socket = createSocket(url, token, sink);
    subscribe(socket, { query: CHANGED, variables, extensions }, sink);
    return () => socket.dispose();
  },
  "graphql-sse": ({ url, token, variables, extensions, sink }) => {
    const headers = async () => ({ authorization: `Bearer ${await token()}` });
    const client = createSseClient({ url, headers, retryAttempts: Infinity, retry: retryWait });
    subscribe(client, { query: CHANGED, variables, extensions }, sink);
    return () => client.dispose();
  },
  "Apollo Client over WebSocket": ({ url, token, variables, extensions, sink }) => {
    const socket = createSocket(url, token, sink);
    const link = ApolloLink.from([resumeLink, new GraphQLWsLink(socket)]);
    return apollo(link, { variables, extensions }, sink, () => socket.dispose());
  },
  "Apollo Client over multipart": ({ url, token, variables, extensions, sink }) => {
    const withToken = setContext(async () => ({ headers: { authorization: `Bearer ${await token()}` } }));
    const retry = new RetryLink({ delay: { initial: 50, max: 200 }, attempts: { max: Infinity } });
    const http = new HttpLink({ uri: url, includeExtensions: true });
    return apollo(ApolloLink.from([resumeLink, retry, withToken, http]), { variables, extensions }, sink, () => {});
  },
  urql: ({ url, token, variables, extensions, sink }) => {
    const socket = createSocket(url, token, sink);
    const exchange = subscriptionExchange({
      forwardSubscription: (request) => ({ subscribe: (sink) => ({ unsubscribe: subscribe(socket, request, sink) }) }),
    });
    const client = new UrqlClient({ url, preferGetMethod: false, exchanges: [exchange] });
    const heard = client.executeSubscription(createRequest(CHANGED, variables, extensions)).subscribe(sink.next);
    return () => (heard.unsubscribe(), socket.dispose());
  },
  "fetch of server-sent events": (asked) =>
    comingBack(asked, async (send, resumeAfter, keep) => {
      const response = await send({ accept: "text/event-stream", "last-event-id": resumeAfter });
      for await (const { id, event, data } of sseEvents(response)) {
        if (id) keep(id);
        if (event === "next") asked.sink.next(JSON.parse(data));
      }
    }),
  "fetch of multipart": (asked) =>
    comingBack(asked, async (send, resumeAfter, keep) => {
      const response = await send({ accept: 'multipart/mixed;subscriptionSpec="1.0"' }, { resumeAfter });
      for await (const { payload } of multipartEvents(response)) {
        if (!payload) continue;
        keep(payload.extensions?.resumeToken);
        asked.sink.next(payload);
      }
    }),
};

function createSocket(url, token, sink) {
  const on = { closed: ({ code }) => sink.closed(code) };
  return createWsClient({
    url: url.replace("http", "ws"),
    webSocketImpl: WebSocket,
    connectionParams: async () => ({ authorization: `Bearer ${await token()}` }),
    retryAttempts: Infinity,
    shouldRetry: () => true,
    retryWait,
    on,
  });
}

function apollo(link, { variables, extensions }, sink, dispose) {
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  const heard = client.subscribe({ query: gql(CHANGED), variables, extensions, fetchPolicy: "no-cache" }).subscribe(sink);
  return () => (heard.unsubscribe(), client.stop(), dispose());
}

/** Reads a stream again and again, each time after the last event. */
function comingBack({ url, token, variables, extensions, sink }, read) {
  const left = new AbortController();
  let resumeAfter = extensions.resumeAfter;
  const keep = (token) => (resumeAfter = token ?? resumeAfter);
  const send = async (headers, extensions) => {
    const authorization = `Bearer ${await token()}`;
    const options = { method: "POST", headers: { "content-type": "application/json", authorization, ...headers }, signal: left.signal };
    return fetch(url, { ...options, body: JSON.stringify({ query: CHANGED, variables, extensions }) });
  };
  const readOn = async () => {
    while (!left.signal.aborted) {
      await read(send, resumeAfter, keep).catch(() => {});
      await retryWait();
    }
  };
  readOn();
  return () => left.abort();
}

// --- what they hear ----------------------------------------------------------------------------------------------

/** A client behind a proxy of its own, which brings it to any of the servers. */
async function listener(name, world) {
  const proxy = await startProxy(() => world.random(world.servers).port);
  const heard = { name, proxy, numbers: [], at: new Map(), connects: 0, closings: {}, odd: [], isShort: false };
  const token = () => {
    heard.connects += 1;
    const seconds = heard.isShort ? SHORT_SECONDS : LONG_SECONDS;
    heard.isShort = false;
    return seconds === SHORT_SECONDS ? world.mint("editor@example.com", seconds) : world.editor;
  };
  const sink = {
    next(result) {
      const number = result.data?.submissionChanged?.data?.number;
      if (number === undefined || !result.extensions?.resumeToken) return heard.odd.push(inspect(result.error ?? result, { depth: 4 }));
      heard.numbers.push(number);
      if (!heard.at.has(number)) heard.at.set(number, performance.now());
    },
    error: (error) => heard.odd.push(inspect(error)),
    complete: () => heard.odd.push("complete"),
    closed: (code) => (heard.closings[code] = (heard.closings[code] ?? 0) + 1),
  };
  const asked = { url: `http://127.0.0.1:${proxy.port}/graphql`, token, variables: { form: world.form } };
  const leave = CLIENTS[name]({ ...asked, extensions: { resumeAfter: world.begin }, sink });
  heard.leave = () => (leave(), proxy.close());
  return heard;
}

/** Submissions with numbers that ascend, by several writers at once; each is sent again until it is acknowledged. */
class Load {
  isOver = false;
  isAbandoned = false;
  #count = 0;
  sent = new Map();
  acknowledged = new Map();

  constructor(world) {
    this.written = Promise.all(Array.from({ length: WRITERS }, () => this.#write(world)));
    this.written.catch((error) => (this.failure = error));
  }

  async #write(world) {
    while (!this.isOver) {
      const number = ++this.#count;
      const input = { formId: world.form, clientId: randomUUID(), data: { number } };
      this.sent.set(number, performance.now());
      let answer;
      // As long as it was tried: a process that is held up has not tried.
      for (let tried = 0; !(answer = await this.#send(world, input))?.data?.createSubmission?.submission; ) {
        if (this.isAbandoned) return;
        tried += SEND_EVERY + (String(answer).startsWith("TimeoutError") ? SEND_WITHIN : 0);
        assert.ok(tried < PATIENCE, `${number} is not taken: ${JSON.stringify(answer)}`);
        await pause(SEND_EVERY);
      }
      this.acknowledged.set(number, performance.now());
      await pause(10);
    }
  }

  async #send(world, input) {
    const headers = { "content-type": "application/json", authorization: `Bearer ${world.collector}` };
    const options = { method: "POST", headers, body: JSON.stringify({ query: SUBMIT, variables: { input } }) };
    const { port } = world.random(world.servers);
    const request = fetch(`http://127.0.0.1:${port}/graphql`, { ...options, signal: AbortSignal.timeout(SEND_WITHIN) });
    return request.then((response) => response.json()).catch((error) => String(error.cause ?? error));
  }

  /** Lets the writers finish what they have begun, unless that is given up. */
  async end(isAbandoned = false) {
    Object.assign(this, { isOver: true, isAbandoned });
    await this.written;
  }
}

// --- what is done to them ----------------------------------------------------------------------------------------

/** The same numbers between 0 and 1 for the same seed (mulberry32). */
function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One end of each kind. What takes long goes on while the next ones come; nothing is ended twice at once. */
const ENDS = {
  cut: async ({ heard, draw }) => heard.proxy.cut(draw() < 0.5),
  async silence({ heard, draw }) {
    heard.proxy.silence();
    await pause(500 + draw() * 1_500);
    // Half of them are cut with what has not come through.
    if (draw() < 0.5) heard.proxy.cut(draw() < 0.5);
    heard.proxy.speak();
  },
  async token({ heard }) {
    heard.isShort = true;
    // Once more, where it was about to connect with the token that it had.
    for (let tries = 0; heard.isShort; tries++) {
      assert.ok(tries * 500 < PATIENCE, `${heard.name} does not come back`);
      heard.proxy.cut(false);
      await pause(500);
    }
    // It is made, taken, and has ended.
    await pause(SHORT_SECONDS * 1_000 + 1_000);
  },
  SIGKILL: ({ server, draw }) => endServer(server, "SIGKILL", draw),
  async SIGTERM({ server, draw }) {
    await endServer(server, "SIGTERM", draw);
  },
  async "Redis killed"({ redis, draw }) {
    await redis.kill();
    await pause(draw() * 1_500);
    redis.start();
  },
  "Redis emptied": ({ redis }) => redis.empty(),
};

async function endServer(server, signal, draw) {
  await server.xp.end(signal);
  if (signal === "SIGTERM") assert.equal(server.xp.server.exitCode, 0, "it ends in order");
  await pause(draw() * 300);
  await server.xp.startAgain();
}

/** What an end of this kind is about: no second one is begun there before it is over. */
const about = (kind, { heard, server, redis }) =>
  kind.startsWith("Redis") ? redis : kind.startsWith("SIG") ? server : heard;

class Redis {
  constructor(port, folder) {
    Object.assign(this, { port, folder });
    this.start();
  }

  start() {
    const options = ["--port", `${this.port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    this.process = spawn("redis-server", options, { cwd: this.folder, stdio: "ignore" });
  }

  async kill() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await ended;
  }

  async empty() {
    const socket = connect({ host: "127.0.0.1", port: this.port });
    // It may be starting, and is empty then.
    socket.on("error", () => {}).resume().end("FLUSHALL\r\n");
    await new Promise((closed) => socket.on("close", closed));
  }
}

/** By tries, not by a clock, which goes on while the machine holds this process up. */
async function until(holds, what) {
  for (let tries = 0; !holds(); tries++) {
    assert.ok(tries * ASK_EVERY < PATIENCE, what());
    await pause(ASK_EVERY);
  }
}

/** How far each is. */
const state = (all, load) =>
  `of ${load.acknowledged.size} acknowledged: ` +
  all.map(({ name, at, connects, odd }) => `${name} ${at.size} (${connects} connects, ${odd})`).join("; ");

function haveHeard(all, numbers) {
  for (const { name, odd } of all) assert.deepEqual(odd, [], `${name}: nothing but events; seed ${SEED}`);
  return all.every(({ at }) => numbers.every((number) => at.has(number)));
}

async function databaseFor(folder) {
  const named = process.env.XP_RESUME_DATABASE;
  if (named) return { url: named, version: named.split(":")[0], close: async () => {} };
  const postgres = KILLS > DEFAULT_KILLS ? await startPostgres() : undefined;
  return postgres ?? { url: `sqlite:${join(folder, "xp.db")}`, version: "SQLite", close: async () => {} };
}

test(`streams miss nothing and repeat nothing over ${KILLS} ends of connections, servers, tokens and Redis`, async (t) => {
  const folder = scratch("resume");
  const database = await databaseFor(folder);
  const draw = randomNumbers(SEED);
  const random = (list) => list[Math.floor(draw() * list.length)];
  const redis = new Redis(await freePort(), folder);
  const environment = { DATABASE_URL: database.url, REDIS_URL: `redis://127.0.0.1:${redis.port}` };
  const servers = [];
  const all = [];
  const busy = new Map();
  let load;
  // Also where the test fails, which would not end otherwise.
  t.after(async () => {
    await load?.end(true).catch(() => {});
    for (const { leave } of all) leave();
    await Promise.allSettled(busy.values());
    for (const { xp } of servers) await xp.end("SIGKILL");
    await redis.kill();
    await database.close();
  });
  for (const _ of ["here", "there"]) {
    const xp = await start({ ...environment });
    servers.push({ xp, port: Number(new URL(xp.url).port) });
  }
  const [{ xp }] = servers;
  const mint = (email, seconds) => xp.mint(email, seconds, database.url);
  const [editor, collector] = [await mint("editor@example.com", LONG_SECONDS), await mint("collector@example.com", LONG_SECONDS)];
  const form = await openForm(xp, editor);
  // Before the first submission: what follows is heard by all, also by who subscribes later.
  const begin = await resumeToken(xp, editor);
  const world = { servers, random, mint, editor, collector, form, begin };
  const began = performance.now();
  load = new Load(world);
  await until(() => load.acknowledged.size >= 10, () => "the load does not begin");
  for (const name of Object.keys(CLIENTS)) all.push(await listener(name, world));

  const kills = {};
  let bag = [];
  for (let count = 1; count <= KILLS; count++) {
    if (bag.length === 0) bag = KINDS.map((kind) => [draw(), kind]).sort(([a], [b]) => a - b).map(([, kind]) => kind);
    const kind = bag.pop();
    const target = { heard: random(all), server: random(servers), redis, draw };
    await busy.get(about(kind, target));
    kills[kind] = (kills[kind] ?? 0) + 1;
    const over = ENDS[kind](target);
    busy.set(about(kind, target), over);
    over.catch(() => {});
    await pause(draw() * 400);
    if (load.failure) throw load.failure;
    if (count % 100 === 0) console.log(`${count} ends, ${load.acknowledged.size} submissions, ${performance.now() - began} ms`);
    if (bag.length > 0) continue;
    await Promise.all(busy.values());
    const numbers = [...load.acknowledged.keys()];
    await until(() => haveHeard(all, numbers), () => `seed ${SEED}, after ${count}: ${state(all, load)}`);
  }
  await Promise.all(busy.values());
  await load.end();
  const numbers = [...load.acknowledged.keys()];
  await until(() => haveHeard(all, numbers), () => `seed ${SEED}, at the end: ${state(all, load)}`);
  // What is told twice would come now.
  await pause(1_000);

  const delays = all.flatMap(({ at }) => numbers.map((number) => at.get(number) - load.acknowledged.get(number)));
  delays.sort((a, b) => a - b);
  const closings = {};
  for (const { closings: own } of all) for (const [code, times] of Object.entries(own)) closings[code] = (closings[code] ?? 0) + times;
  const figures = {
    database: database.version,
    seed: SEED,
    seconds: Math.round((performance.now() - began) / 1_000),
    kills,
    submissions: numbers.length,
    events: all.reduce((sum, heard) => sum + heard.numbers.length, 0),
    connects: Object.fromEntries(all.map(({ name, connects }) => [name, connects])),
    closings,
    gaps: all.reduce((sum, { at }) => sum + numbers.filter((number) => !at.has(number)).length, 0),
    duplicates: all.reduce((sum, heard) => sum + heard.numbers.length - heard.at.size, 0),
    delays: { half: delays[delays.length >> 1], "99 %": delays[Math.floor(delays.length * 0.99)], longest: delays.at(-1) },
  };
  console.log(JSON.stringify(figures, (_, value) => (typeof value === "number" ? Math.round(value) : value), 1));

  for (const heard of all) {
    assert.equal(heard.numbers.length, heard.at.size, `${heard.name}: each once; seed ${SEED}`);
    assert.equal(heard.at.size, numbers.length, `${heard.name}: nothing that was not written`);
    assert.deepEqual(heard.numbers, all[0].numbers, `${heard.name}: in the order of ${all[0].name}; seed ${SEED}`);
  }
  inOrder(all[0].numbers, load);
  for (const { leave } of all) await leave();
  for (const { xp } of servers) {
    for (const transport of ["websocket", "sse", "multipart"]) await xp.expectSubscriptions(transport, 0);
    assert.equal(await xp.stop(), 0);
  }
});

/** What was acknowledged before another one was sent comes before it. */
function inOrder(numbers, { sent, acknowledged }) {
  let earliest = Infinity;
  for (const number of numbers.toReversed()) {
    assert.ok(sent.get(number) <= earliest, `${number} comes too early; seed ${SEED}`);
    earliest = Math.min(earliest, acknowledged.get(number));
  }
}
