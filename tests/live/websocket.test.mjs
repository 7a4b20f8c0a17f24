// `graphql-transport-ws` as the clients of the package graphql-ws speak it, and what it says to clients that do not keep
// to it. Not here: which events there are (the tests in Rust).
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, test } from "node:test";

import { createClient } from "graphql-ws";
import WebSocket from "ws";

import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude user { displayName } } }";

let xp;
before(async () => (xp = await start({ XP_HTTP_CORS_ORIGINS: "https://app.example" })));
after(async () => assert.equal(await xp.stop(), 0));

function client(token, options = {}) {
  const connectionParams = token && { authorization: `Bearer ${token}` };
  return createClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0, ...options });
}

async function subscribed(client, query, variables) {
  const before = await xp.subscriptions("websocket");
  const events = client.iterate({ query, variables });
  const first = events.next();
  first.catch(() => {});
  await xp.expectSubscriptions("websocket", before + 1);
  return { first, events };
}

/** A socket without a client's help. */
async function bare(options = {}, protocols = ["graphql-transport-ws"]) {
  const socket = new WebSocket(xp.socketUrl, protocols, options);
  socket.said = [];
  socket.closed = once(socket, "close").then(([code, reason]) => [code, String(reason)]);
  socket.on("message", (data) => socket.said.push(JSON.parse(data)));
  await once(socket, "open");
  socket.say = (message) => socket.send(typeof message === "string" ? message : JSON.stringify(message));
  socket.hear = async (type) => {
    for (let tries = 0; tries < 200; tries++) {
      const found = socket.said.find((message) => message.type === type);
      if (found) return found;
      await pause(10);
    }
    assert.fail(`no ${type} in ${JSON.stringify(socket.said)}`);
  };
  return socket;
}

async function greeted(token) {
  const socket = await bare();
  socket.say({ type: "connection_init", payload: { authorization: `Bearer ${token}` } });
  await socket.hear("connection_ack");
  return socket;
}

test("events arrive, and a subscription that is ended is forgotten", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const ws = client(token);
  const { first, events } = await subscribed(ws, MOVED);
  await xp.goTo(token, 12.5);
  const { value } = await first;
  assert.equal(value.data.locationUpdated.latitude, 12.5);
  assert.ok(value.data.locationUpdated.user.displayName);
  await events.return();
  await xp.expectSubscriptions("websocket", 0);
  await ws.dispose();
});

test("queries, mutations and errors come over the socket too", async () => {
  const { token, session } = await xp.signIn("EDITOR");
  const ws = client(token);
  const only = async (query) => {
    const results = [];
    for await (const result of ws.iterate({ query })) results.push(result);
    assert.equal(results.length, 1);
    return results[0];
  };
  assert.equal((await only("{ currentSession { id } }")).data.currentSession.id, session);
  const rename = `mutation { renameSession(input: { id: "${session}", name: "socket" }) { session { name } } }`;
  assert.equal((await only(rename)).data.renameSession.session.name, "socket");
  await assert.rejects(only("{ nothing }"), (errors) => errors[0].extensions.code === "GRAPHQL_VALIDATION_FAILED");
  const twice = "subscription { a: sessionEnded { id } b: sessionEnded { id } }";
  await assert.rejects(only(twice), (errors) => errors[0].extensions.code === "GRAPHQL_VALIDATION_FAILED");
  const failed = await only('{ node(id: "nonsense") { id } }');
  assert.equal(failed.errors?.[0].extensions.code ?? failed.data.node, failed.errors ? "BAD_USER_INPUT" : null);
  await ws.dispose();
});

test("without an account one may ask, and is told that one may not wait", async () => {
  const ws = client(undefined);
  const refused = ws.iterate({ query: MOVED }).next();
  await assert.rejects(refused, (errors) => errors[0].extensions.code === "UNAUTHENTICATED");
  await ws.dispose();
});

test("the socket of a session that is ended is closed within a second", async () => {
  const [{ token, session }, other] = [await xp.signIn("COLLECTOR"), await xp.signIn("COLLECTOR")];
  const [socket, stays] = [await greeted(token), await greeted(other.token)];
  socket.say({ id: "1", type: "subscribe", payload: { query: MOVED } });
  await xp.endSession(other.token, session);
  const begun = Date.now();
  assert.deepEqual(await socket.closed, [4403, "Forbidden"]);
  assert.ok(Date.now() - begun < 1000);
  assert.equal(stays.readyState, WebSocket.OPEN);
  stays.terminate();
  await xp.expectSubscriptions("websocket", 0);
});

test("the socket of a token that runs out is closed", async () => {
  const socket = await greeted(await xp.mint("collector@example.com", 3));
  socket.say({ id: "1", type: "subscribe", payload: { query: MOVED } });
  assert.deepEqual(await socket.closed, [4401, "The access token has expired"]);
});

test("a new token of the same session keeps the socket, another's closes it", async () => {
  const { token, refresh } = await xp.signIn("COLLECTOR");
  const socket = await greeted(token);
  const query = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken } }";
  const { refreshSession } = await xp.ask(undefined, query, { input: { refreshToken: refresh } });
  socket.say({ type: "ping", payload: { authorization: `Bearer ${refreshSession.accessToken}` } });
  await socket.hear("pong");
  const foreign = await xp.signIn("EDITOR");
  socket.say({ type: "ping", payload: { authorization: `Bearer ${foreign.token}` } });
  assert.equal((await socket.closed)[0], 4403);
});

test("what is not in the protocol closes the socket with its code", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const early = await bare();
  early.say({ id: "1", type: "subscribe", payload: { query: "{ __typename }" } });
  assert.deepEqual(await early.closed, [4401, "Unauthorized"]);

  const bad = await bare();
  bad.say({ type: "connection_init", payload: { authorization: "Bearer nonsense" } });
  assert.deepEqual(await bad.closed, [4403, "Forbidden"]);

  for (const message of ["{", "[]", '{"type":"unknown"}', '{"type":"subscribe","id":"1"}', '{"type":1}']) {
    const socket = await greeted(token);
    socket.say(message);
    assert.equal((await socket.closed)[0], 4400, message);
  }

  const again = await greeted(token);
  again.say({ type: "connection_init" });
  assert.equal((await again.closed)[0], 4429);

  const taken = await greeted(token);
  for (let twice = 0; twice < 2; twice++) taken.say({ id: "1", type: "subscribe", payload: { query: MOVED } });
  assert.equal((await taken.closed)[0], 4409);

  const silent = await bare();
  assert.deepEqual(await silent.closed, [4408, "Connection initialisation timeout"]);

  const other = new WebSocket(xp.socketUrl, "graphql-ws");
  const [refused] = await once(other, "error");
  assert.match(refused.message, /no subprotocol/);
  const without = await bare({}, []);
  assert.equal((await without.closed)[0], 4406);
});

test("pages of origins that are not listed may not connect", async () => {
  const foreign = new WebSocket(xp.socketUrl, "graphql-transport-ws", { origin: "https://evil.example" });
  const [error] = await once(foreign, "error");
  assert.match(error.message, /403/);
  for (const origin of [new URL(xp.url).origin, "https://app.example"]) (await bare({ origin })).terminate();
});

test("a socket runs 50 operations at a time, not more", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const socket = await greeted(token);
  for (let id = 0; id <= 50; id++) socket.say({ id: `${id}`, type: "subscribe", payload: { query: MOVED } });
  const refused = await socket.hear("error");
  assert.equal(refused.id, "50");
  assert.equal(refused.payload[0].extensions.code, "OVERLOADED");
  await xp.expectSubscriptions("websocket", 50);
  socket.say({ id: "0", type: "complete" });
  await xp.expectSubscriptions("websocket", 49);
  socket.terminate();
  await xp.expectSubscriptions("websocket", 0);
});

test("who does not read is cut off, and keeps no memory", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const { hostname, port } = new URL(xp.url);
  const socket = connect(Number(port), hostname);
  await once(socket, "connect");
  socket.write(
    `GET /graphql HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
      "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n",
  );
  await once(socket, "data");
  socket.write(frame({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  await once(socket, "data");
  socket.write(frame({ id: "waits", type: "subscribe", payload: { query: MOVED } }));
  await xp.expectSubscriptions("websocket", 1);
  socket.pause();
  const types = "types { fields { name description type { name } args { name description } } }";
  const query = `{ ${[..."abcdefghij"].map((key) => `${key}: __schema { ${types} }`).join(" ")} }`;
  const before = await xp.memory();
  for (let id = 0; id < 40; id++) socket.write(frame({ id: `${id}`, type: "subscribe", payload: { query } }));
  for (let waited = 0; waited < 60 && (await xp.subscriptions("websocket")) > 0; waited++) await pause(500);
  assert.equal(await xp.subscriptions("websocket"), 0, "what it had subscribed to is over");
  assert.ok((await xp.memory()) - before < 64 * 1024);
  const closed = new Promise((done) => socket.on("close", done).on("error", done));
  socket.resume();
  await closed;
});

/** A masked text frame. */
function frame(message) {
  const text = Buffer.from(JSON.stringify(message));
  const length = Buffer.from([254, text.length >> 8, text.length & 255]);
  return Buffer.concat([Buffer.from([0x81]), length, Buffer.alloc(4), text]);
}

test("10,000 sockets that come and go leave nothing behind", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const cycle = async (how) => {
    const socket = await greeted(token);
    socket.say({ id: "1", type: "subscribe", payload: { query: MOVED } });
    if (how % 4 === 0) socket.say({ id: "1", type: "complete" });
    if (how % 4 === 1) return socket.close(), socket.closed;
    if (how % 4 === 2) await pause(5);
    socket._socket.resetAndDestroy();
  };
  const many = async (count) => {
    for (let done = 0; done < count; done += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, index) => cycle(index)));
    }
    await xp.expectSubscriptions("websocket", 0);
    await pause(500);
    return xp.memory();
  };
  const warm = await many(2_000);
  const end = await many(8_000);
  console.log(`resident: ${warm} KiB after 2,000 sockets, ${end} KiB after 10,000`);
  assert.ok(end - warm < 8 * 1024, `${warm} KiB after 2,000 cycles, ${end} KiB after 10,000`);
});

test("the server closes its sockets before it stops", async () => {
  const own = await start();
  const socket = new WebSocket(own.socketUrl, "graphql-transport-ws");
  await once(socket, "open");
  const closed = once(socket, "close");
  socket.send(JSON.stringify({ type: "connection_init" }));
  await once(socket, "message");
  const [code, [closeCode]] = await Promise.all([own.stop(), closed]);
  assert.deepEqual([code, closeCode], [0, 1001]);
});
