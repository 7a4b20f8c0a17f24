// Two servers on one database with a Redis between them: what is written on one reaches the subscribers of the other,
// over both transports, and the end of a session closes its streams everywhere. One server: the other files.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { freePort, scratch } from "../processes.mjs";
import { pause, start } from "./xp.mjs";

const MOVED = "subscription { locationUpdated { latitude } }";
const HANDED_IN = "subscription($form: ID!) { submissionChanged(formId: $form) { id data } }";
const ENDED = "subscription { sessionEnded { id endReason } }";

let folder, redis, startRedis, here, there;

before(async () => {
  folder = scratch("nodes");
  const port = await freePort();
  startRedis = () => {
    const options = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"];
    redis = spawn("redis-server", options, { cwd: folder, stdio: "ignore" });
  };
  startRedis();
  const environment = { DATABASE_URL: `sqlite:${join(folder, "xp.db")}`, REDIS_URL: `redis://127.0.0.1:${port}` };
  here = await start(environment);
  there = await start(environment);
});

after(async () => {
  assert.deepEqual([await here?.stop(), await there?.stop()], [0, 0]);
  redis?.kill("SIGKILL");
});

const headers = (token) => ({ authorization: `Bearer ${token}` });
const TRANSPORTS = {
  websocket: (xp, token) =>
    createWsClient({ url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams: headers(token), retryAttempts: 0 }),
  sse: (xp, token) => createSseClient({ url: xp.url, headers: headers(token), retryAttempts: 0 }),
};

/** Events of the other server, once it listens. */
async function subscribed(transport, token, query, variables) {
  const before = await there.subscriptions(transport);
  const client = TRANSPORTS[transport](there, token);
  const events = client.iterate({ query, variables });
  const first = events.next();
  first.catch(() => {});
  await there.expectSubscriptions(transport, before + 1);
  const close = async () => {
    await events.return();
    await client.dispose();
    await there.expectSubscriptions(transport, before);
  };
  return { first, events, close };
}

/** A form that takes a name, made and opened on the first server. */
async function openForm(token) {
  const definition = { schema: 1, fields: [{ key: "name", type: "TEXT", label: "Name" }] };
  const create = "mutation($d: JSON!) { createForm(input: { title: \"Live\", definition: $d }) { form { id } } }";
  const { id } = (await here.ask(token, create, { d: definition })).createForm.form;
  await here.ask(token, "mutation($id: ID!) { publishForm(input: { id: $id, baseRevision: 1 }) { form { status } } }", { id });
  return id;
}

for (const transport of Object.keys(TRANSPORTS)) {
  test(`what is written on one server reaches the subscribers of the other (${transport})`, async () => {
    const collector = await here.signIn("COLLECTOR");
    const moved = await subscribed(transport, collector.token, MOVED);
    let next = moved.first;
    for (const latitude of [1.5, 2.5, 3.5, 4.5, 5.5]) {
      await here.goTo(collector.token, latitude);
      assert.equal((await next).value.data.locationUpdated.latitude, latitude);
      next = moved.events.next();
      next.catch(() => {});
    }
    await moved.close();

    const editor = await here.signIn("EDITOR");
    const form = await openForm(editor.token);
    const handedIn = await subscribed(transport, editor.token, HANDED_IN, { form });
    const submit = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } } }";
    const { createSubmission } = await here.ask(collector.token, submit, { input: { formId: form, data: { name: "Mai" } } });
    const event = (await handedIn.first).value.data.submissionChanged;
    assert.deepEqual(event, { id: createSubmission.submission.id, data: { name: "Mai" } });
    await handedIn.close();

    const other = await here.signIn("COLLECTOR");
    const ended = await subscribed(transport, collector.token, ENDED);
    await here.endSession(collector.token, other.session);
    assert.deepEqual((await ended.first).value.data.sessionEnded, { id: other.session, endReason: "REVOKED_BY_USER" });
    await ended.close();
  });
}

test("a socket closes within a second of the end of its session on another server", async () => {
  const [{ token, session }, other] = [await here.signIn("COLLECTOR"), await here.signIn("COLLECTOR")];
  const socket = new WebSocket(there.socketUrl, "graphql-transport-ws");
  const closed = once(socket, "close");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: headers(token) }));
  await once(socket, "message");
  await here.endSession(other.token, session);
  const begun = Date.now();
  assert.equal((await closed)[0], 4401);
  assert.ok(Date.now() - begun < 1_000, `${Date.now() - begun} ms`);
});

test("an event stream ends within a second of the end of its session on another server", async () => {
  const [{ token, session }, other] = [await here.signIn("COLLECTOR"), await here.signIn("COLLECTOR")];
  const response = await fetch(there.url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream", ...headers(token) },
    body: JSON.stringify({ query: MOVED }),
  });
  const text = response.text();
  await here.endSession(other.token, session);
  const begun = Date.now();
  assert.match(await text, /UNAUTHENTICATED[^\n]*\n\nevent: complete\ndata: \n\n$/);
  assert.ok(Date.now() - begun < 1_000, `${Date.now() - begun} ms`);
});

/** Streams of all kinds on the other server; what each has told so far, and whether it has ended. */
async function streams(token) {
  const all = [];
  const listen = (transport) => all[all.push({ transport, told: "", ended: false }) - 1];
  const socket = new WebSocket(there.socketUrl, "graphql-transport-ws");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: headers(token) }));
  await once(socket, "message");
  socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: { query: MOVED } }));
  const overSocket = listen("websocket");
  socket.on("message", (message) => (overSocket.told += message));
  socket.on("close", (code) => (overSocket.ended = code));
  const controller = new AbortController();
  for (const [transport, accept] of [["sse", "text/event-stream"], ["multipart", 'multipart/mixed;subscriptionSpec="1.0"']]) {
    const asked = { "content-type": "application/json", accept, ...headers(token) };
    const options = { method: "POST", headers: asked, body: JSON.stringify({ query: MOVED }), signal: controller.signal };
    const response = await fetch(there.url, options);
    const stream = listen(transport);
    const read = async () => {
      for await (const bytes of response.body) stream.told += Buffer.from(bytes);
      stream.ended = true;
    };
    read().catch(() => {});
  }
  for (const { transport } of all) await there.expectSubscriptions(transport, 1);
  const close = async () => {
    socket.terminate();
    controller.abort();
    for (const { transport } of all) await there.expectSubscriptions(transport, 0);
  };
  return { all, close };
}

async function until(holds) {
  for (let tries = 0; tries < 600 && !holds(); tries++) await pause(100);
  return holds();
}

for (const [what, [begins, ends]] of Object.entries({
  "Redis is away": [
    async () => {
      redis.kill("SIGKILL");
      await once(redis, "exit");
    },
    async () => startRedis(),
  ],
  "Redis does not answer, though its connections stand": [
    async () => redis.kill("SIGSTOP"),
    async () => redis.kill("SIGCONT"),
  ],
})) {
  test(`while ${what} streams go on and miss nothing`, async () => {
    const { token } = await here.signIn("COLLECTOR");
    const { all, close } = await streams(token);
    const has = (latitude) => all.every(({ told }) => told.includes(`"latitude":${latitude}`));
    await here.goTo(token, 70.5);
    assert.ok(await until(() => has(70.5)), JSON.stringify(all));
    await begins();
    for (const latitude of [71.5, 72.5]) {
      await here.goTo(token, latitude);
      assert.ok(await until(() => has(latitude)), JSON.stringify(all));
    }
    await pause(5_000);
    await ends();
    await here.goTo(token, 73.5);
    assert.ok(await until(() => has(73.5)), JSON.stringify(all));
    await pause(1_000);
    for (const { transport, told, ended } of all) {
      assert.equal(ended, false, `${transport} goes on: ${told}`);
      const latitudes = [...told.matchAll(/"latitude":([\d.]+)/g)].map(([, latitude]) => Number(latitude));
      assert.deepEqual(latitudes, [70.5, 71.5, 72.5, 73.5], `${transport}: each once`);
      assert.equal(told.match(/"resumeToken":"/g).length, 4, told);
    }
    await close();
  });
}
