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

test("each set of variables has its own answer, and then the operation is complete", async () => {
  const { token } = await xp.signIn("EDITOR");
  const socket = await greeted(token);
  const id = "00000000-0000-4000-8000-000000000000";
  const query = "query($id: ID!) { user(id: $id) { id } }";
  socket.say({ id: "sets", type: "subscribe", payload: { query, variables: [{ id }, {}, { id }] } });
  await socket.hear("complete");
  const told = socket.said.filter((message) => message.id === "sets");
  assert.deepEqual(told.map(({ type }) => type), ["next", "next", "next", "complete"]);
  const answers = told.slice(0, 3).map(({ payload }) => payload);
  assert.deepEqual(answers.map(({ variableIndex }) => variableIndex), [0, 1, 2]);
  assert.deepEqual([answers[0].data, answers[2].data], [{ user: null }, { user: null }]);
  assert.equal(answers[1].errors[0].extensions.code, "BAD_USER_INPUT");
  // What is wrong with all of it is an error of the operation, and the socket goes on.
  for (const [query, variables] of [
    ["{ nothing }", [{}, {}]],
    [MOVED, [{}, {}]],
    ["{ __typename }", []],
  ]) {
    socket.said = [];
    socket.say({ id: "wrong", type: "subscribe", payload: { query, variables } });
    const { payload } = await socket.hear("error");
    assert.equal(typeof payload[0].extensions.code, "string");
    await pause(50);
    assert.deepEqual(socket.said.map(({ type }) => type), ["error"]);
  }
  socket.close();
});

test("an operation says what a failed field does to the rest of its answer", async () => {
  const { token } = await xp.signIn("EDITOR");
  const socket = await greeted(token);
  const query = "{ me { role forms(first: 1000) { totalCount } } }";
  for (const [onError, data] of [
    [undefined, { me: null }],
    ["NULL", { me: { role: "EDITOR", forms: null } }],
    ["HALT", null],
  ]) {
    socket.said = [];
    socket.say({ id: "a", type: "subscribe", payload: { query, onError } });
    const { payload } = await socket.hear("next");
    assert.deepEqual([payload.data, payload.errors.length], [data, 1]);
    await socket.hear("complete");
  }
  socket.close();
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
  assert.deepEqual(await socket.closed, [4401, "The session has ended"]);
  assert.ok(Date.now() - begun < 1000);
  assert.equal(stays.readyState, WebSocket.OPEN);
  stays.terminate();
  await xp.expectSubscriptions("websocket", 0);
});

test("the socket of a token that runs out is closed", async () => {
  const socket = await greeted(await xp.mint("collector@example.com", 3));
  socket.say({ id: "1", type: "subscribe", payload: { query: MOVED } });
  assert.deepEqual(await socket.closed, [4403, "The access token has expired"]);
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
  assert.deepEqual(await early.closed, [4401, "Unauthorized: connection_init comes first"]);

  const bad = await bare();
  bad.say({ type: "connection_init", payload: { authorization: "Bearer nonsense" } });
  assert.deepEqual(await bad.closed, [4403, "The access token is not valid"]);

  for (const [payload, code] of [
    [{ authorization: 5 }, 4403],
    [{ headers: { authorization: [`Bearer ${token}`] } }, 4403],
    [{ headers: "x" }, 4403],
    [{ authorization: "" }, 4403],
    ["text", 4400],
    [[], 4400],
    [{ authorization: `Bearer ${token}`, x: "[".repeat(128) }, undefined],
  ]) {
    for (const type of ["connection_init", "ping"]) {
      const socket = type === "ping" ? await greeted(token) : await bare();
      socket.say({ type, payload });
      if (code) assert.equal((await socket.closed)[0], code, JSON.stringify({ type, payload }));
      else socket.close();
    }
  }
  const deep = `${'{"a":'.repeat(128)}1${"}".repeat(128)}`;
  for (const type of ["connection_init", "ping", "pong", "complete", "subscribe"]) {
    const socket = type === "connection_init" ? await bare() : await greeted(token);
    socket.say(`{"type":"${type}","id":"1","payload":${deep}}`);
    assert.equal((await socket.closed)[0], 4400, `${type}, nested deep`);
  }

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

test("a message that is too large ends a client of graphql-ws after one connect", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  let connects = 0;
  const ws = client(token, { retryAttempts: 3, retryWait: () => pause(20), on: { connected: () => connects++ } });
  const large = ws.iterate({ query: "{ me { id } }", variables: { unused: "a".repeat(3 << 20) } }).next();
  await assert.rejects(large, ({ code, reason }) => code === 1009 && reason === "The message is too large");
  assert.equal(connects, 1);
  await ws.dispose();
});

test("how large a message may be depends on who sends it and what it is", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  const query = (bytes) => ({ id: "1", type: "subscribe", payload: { query: "{ __typename }", variables: { a: "x".repeat(bytes) } } });
  const nobody = await bare();
  nobody.say({ type: "connection_init" });
  await nobody.hear("connection_ack");
  nobody.say(query(60 << 10));
  await nobody.hear("complete");
  nobody.say(query(64 << 10));
  assert.equal((await nobody.closed)[0], 1009);
  const socket = await greeted(token);
  socket.say(query(1 << 20));
  await socket.hear("complete");
  socket.say({ type: "ping", payload: { a: "x".repeat(16 << 10) } });
  assert.equal((await socket.closed)[0], 1009, "only `subscribe` has much to say");
  const early = await bare();
  early.say({ type: "connection_init", payload: { a: "x".repeat(16 << 10), authorization: `Bearer ${token}` } });
  assert.equal((await early.closed)[0], 1009);
});

test("frames that are not as they should be close the socket with their code", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  for (const [code, send] of [
    [4400, (socket) => socket.send(Buffer.from("{}"))],
    [1007, (socket) => socket._socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]))],
    [1002, (socket) => socket._socket.write(Buffer.from([0x81, 2, 0x7b, 0x7d]))],
    [1002, (socket) => socket._socket.write(Buffer.from([0xc1, 0x80, 0, 0, 0, 0]))],
    [1002, (socket) => socket._socket.write(Buffer.from([0x83, 0x80, 0, 0, 0, 0]))],
  ]) {
    for (const socket of [await bare(), await greeted(token)]) {
      send(socket);
      assert.equal((await socket.closed)[0], code);
    }
  }
});

test("a message that has begun must end, whatever comes in between", async () => {
  const own = await start({ XP_HTTP_BODY_TIMEOUT: "1s" });
  const socket = new WebSocket(own.socketUrl, "graphql-transport-ws");
  const closed = once(socket, "close");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init" }));
  await once(socket, "message");
  await pause(1_500);
  assert.equal(socket.readyState, WebSocket.OPEN, "who says nothing has all the time");
  const begun = Date.now();
  socket.send('{"type":', { fin: false });
  const more = setInterval(() => (socket.ping(), socket.pong(), socket.send(" ", { fin: false })), 100);
  const [code, reason] = await closed;
  clearInterval(more);
  assert.deepEqual([code, String(reason)], [4408, "A message did not arrive in time"]);
  assert.ok(Date.now() - begun < 5_000);
  assert.equal(await own.stop(), 0);
});

test("an address has so many sockets that are not signed in, an account so many that are", async () => {
  const own = await start({ XP_HTTP_MAX_SOCKETS_PER_ADDRESS: "2", XP_HTTP_MAX_SOCKETS_PER_ACCOUNT: "3" });
  const [{ token }, other] = [await own.signIn("COLLECTOR"), await own.signIn("EDITOR")];
  const connect = async (token) => {
    const socket = new WebSocket(own.socketUrl, "graphql-transport-ws");
    socket.ended = once(socket, "close").then(([code, reason]) => [code, String(reason)]);
    socket.ended.catch(() => {}); // A handshake that is refused is told below.
    await once(socket, "open");
    socket.send(JSON.stringify({ type: "connection_init", ...(token && { payload: { authorization: `Bearer ${token}` } }) }));
    const answered = await Promise.race([once(socket, "message").then(([data]) => JSON.parse(data).type), socket.ended]);
    return { socket, answered };
  };
  // The places of sockets that were closed are free once the closing is done.
  const acknowledged = async (token) => {
    for (let tries = 0; tries < 100; tries++) {
      const next = await connect(token).catch(() => ({}));
      if (next.answered === "connection_ack") return next.answered;
      await pause(50);
    }
  };
  const mine = [];
  for (let count = 0; count < 3; count++) mine.push(await connect(token));
  assert.deepEqual(mine.map(({ answered }) => answered), Array(3).fill("connection_ack"));
  assert.deepEqual((await connect(token)).answered, [1013, "This account has too many WebSockets"]);
  assert.equal(await acknowledged(other.token), "connection_ack");
  mine[0].socket.close();
  await mine[0].socket.ended;
  assert.equal(await acknowledged(token), "connection_ack");
  const strangers = [await acknowledged(), await acknowledged()];
  await assert.rejects(connect(), /429/);
  assert.deepEqual(strangers, ["connection_ack", "connection_ack"]);
  assert.equal(await own.stop(), 0);
});

test("sockets before sign-in that begin messages and do not end them take little memory", async () => {
  const own = await start({ XP_HTTP_BODY_TIMEOUT: "1m" });
  const half = Buffer.from(JSON.stringify({ type: "ping", payload: { a: "x".repeat(2 << 20) } }));
  const before = await own.memory();
  const sockets = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const socket = new WebSocket(own.socketUrl, "graphql-transport-ws");
      socket.on("error", () => {});
      await once(socket, "open");
      socket.send(JSON.stringify({ type: "connection_init" }));
      socket.send(half.subarray(0, 63 << 10), { fin: false });
      return socket;
    }),
  );
  await pause(1_000);
  const { token } = await own.signIn("COLLECTOR");
  assert.ok((await own.ask(token, "{ me { id } }")).me.id, "others are served");
  const risen = ((await own.memory()) - before) / 1024;
  console.log(`${risen.toFixed(1)} MiB for 200 sockets with 63 KiB of a message each`);
  assert.ok(risen < 64, `${risen} MiB`);
  for (const socket of sockets) socket.terminate();
  assert.equal(await own.stop(), 0);
});

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

test("what is running and has one answer is answered before the server stops", async () => {
  const own = await start();
  const { token } = await own.signIn("COLLECTOR");
  const socket = new WebSocket(own.socketUrl, "graphql-transport-ws");
  const [said, closed] = [[], once(socket, "close")];
  socket.on("message", (data) => said.push(JSON.parse(data)));
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: { authorization: `Bearer ${token}` } }));
  socket.send(JSON.stringify({ id: "waits", type: "subscribe", payload: { query: MOVED } }));
  await own.expectSubscriptions("websocket", 1);
  // Hashing a password takes its time.
  const query = 'mutation { signIn(input: { email: "nobody@example.com", password: "no password of anybody" }) { userErrors { code } } }';
  socket.send(JSON.stringify({ id: "once", type: "subscribe", payload: { query } }));
  await pause(20);
  const [code, [closeCode]] = await Promise.all([own.stop(), closed]);
  assert.deepEqual([code, closeCode], [0, 1001]);
  assert.deepEqual(said.filter(({ id }) => id === "once").map(({ type }) => type), ["next", "complete"]);
});
