// Streams that outlive their tokens, and their server: the clients of other makers come back by their own means, with their
// own settings, and lack only what happened while they were away. Not here: what each transport says then (its own file).
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";

import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client/core/index.js";
import { setContext } from "@apollo/client/link/context/index.js";
import { RetryLink } from "@apollo/client/link/retry/index.js";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { scratch } from "../processes.mjs";
import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";
const RENEWALS = 4;
/** A token must outlast being made and a few events, on a busy machine. */
const TOKEN_SECONDS = 8;
/** How long an event may take to a client that is there. */
const PATIENCE = 5_000;

/** What a client of each kind hears; `connecting` is called each time that it asks for a token. */
const CLIENTS = {
  "graphql-ws": (url, token, sink) => {
    const connectionParams = async () => ({ authorization: `Bearer ${await token()}` });
    const client = createWsClient({ url: url.replace("http", "ws"), webSocketImpl: WebSocket, connectionParams, retryAttempts: 20 });
    client.on("closed", () => (sink.isHere = false));
    client.subscribe({ query: MOVED }, sink);
    return () => client.dispose();
  },
  "graphql-sse": (url, token, sink) => {
    const headers = async () => ({ authorization: `Bearer ${await token()}` });
    const client = createSseClient({ url, headers, retryAttempts: 20 });
    client.subscribe({ query: MOVED }, sink);
    return () => client.dispose();
  },
  "Apollo Client over WebSocket": (url, token, sink) => {
    const connectionParams = async () => ({ authorization: `Bearer ${await token()}` });
    const client = createWsClient({ url: url.replace("http", "ws"), webSocketImpl: WebSocket, connectionParams, retryAttempts: 20 });
    client.on("closed", () => (sink.isHere = false));
    return apollo(new GraphQLWsLink(client), sink, () => client.dispose());
  },
  "Apollo Client over multipart": (url, token, sink) => {
    const withToken = setContext(async () => ({ headers: { authorization: `Bearer ${await token()}` } }));
    const retry = new RetryLink({ delay: { max: 1_000 }, attempts: { max: Infinity } });
    return apollo(ApolloLink.from([retry, withToken, new HttpLink({ uri: url })]), sink, () => {});
  },
};

function apollo(link, sink, dispose) {
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  const subscription = client.subscribe({ query: gql(MOVED), fetchPolicy: "no-cache" }).subscribe(sink);
  return () => (subscription.unsubscribe(), client.stop(), dispose());
}

/** Clients of all kinds; each keeps the latitudes that it hears, and after which of them it had been away. */
function listeners(url, token) {
  return Object.entries(CLIENTS).map(([name, listen]) => {
    const heard = { name, latitudes: [], connects: 0, isHere: false, wasAway: false, awayBefore: new Set(), ended: undefined };
    const connecting = () => {
      Object.assign(heard, { connects: heard.connects + 1, isHere: false, wasAway: true });
      return token();
    };
    heard.next = (result) => {
      const latitude = result.data?.locationUpdated?.latitude;
      if (latitude === undefined) return (heard.ended ??= { odd: result });
      if (heard.wasAway) heard.awayBefore.add(latitude);
      Object.assign(heard, { isHere: true, wasAway: false });
      heard.latitudes.push(latitude);
    };
    heard.error = (error) => (heard.ended ??= { error });
    heard.complete = () => (heard.ended ??= { complete: true });
    heard.leave = listen(url, connecting, heard);
    return heard;
  });
}

/** Moves on, one event after another, until this is so; nobody who is there may miss one. */
async function moveUntil(xp, traveller, latitude, all, isDone) {
  const until = Date.now() + 120_000;
  while (!isDone()) {
    assert.ok(Date.now() < until, JSON.stringify(all.map(({ name, connects, latitudes, ended }) => [name, connects, latitudes.length, String(ended)])));
    await xp.goTo(traveller, ++latitude / 10);
    const at = latitude / 10;
    const since = Date.now();
    while (all.some(({ isHere, latitudes }) => isHere && latitudes.at(-1) !== at) && Date.now() - since < PATIENCE) await pause(20);
    await pause(100);
  }
  return latitude;
}

function checkNothingLost(all) {
  for (const { name, latitudes, awayBefore, ended } of all) {
    assert.equal(ended, undefined, `${name} ended`);
    for (const [index, latitude] of latitudes.entries()) {
      if (index === 0 || awayBefore.has(latitude)) continue;
      assert.equal(Math.round(latitude * 10), Math.round(latitudes[index - 1] * 10) + 1, `${name} lost something though it was there`);
    }
  }
}

test("streams live on over four renewals of their tokens", async () => {
  const xp = await start();
  const { token } = await xp.signIn("COLLECTOR");
  const all = listeners(xp.url, () => xp.mint("collector@example.com", TOKEN_SECONDS));
  const cameBack = ({ connects, isHere }) => connects > RENEWALS && isHere;
  await moveUntil(xp, token, 0, all, () => all.every(cameBack));
  checkNothingLost(all);
  for (const { name, latitudes, connects } of all) console.log(`${name}: ${connects} connects, ${latitudes.length} events`);
  await Promise.all(all.map(({ leave }) => leave()));
  assert.equal(await xp.stop(), 0);
});

test("clients come back after a server that was told to stop", async () => {
  const folder = scratch("restart");
  const database = `sqlite:${join(folder, "xp.db")}`;
  const first = await start({ DATABASE_URL: database });
  const { token } = await first.signIn("COLLECTOR");
  const all = listeners(first.url, async () => token);
  const latitude = await moveUntil(first, token, 0, all, () => all.every(({ latitudes }) => latitudes.length > 1));
  assert.equal(await first.stop(), 0);
  const second = await start({ DATABASE_URL: database, PORT: new URL(first.url).port });
  const before = all.map(({ latitudes }) => latitudes.length);
  await moveUntil(second, token, latitude, all, () => all.every(({ latitudes }, index) => latitudes.length > before[index] + 1));
  checkNothingLost(all);
  await Promise.all(all.map(({ leave }) => leave()));
  assert.equal(await second.stop(), 0);
});
