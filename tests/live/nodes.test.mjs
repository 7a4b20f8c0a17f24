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

/** Streams of all kinds on the other server; each tells how it ends. */
async function interruptible(token) {
  const socket = new WebSocket(there.socketUrl, "graphql-transport-ws");
  const closed = once(socket, "close");
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "connection_init", payload: headers(token) }));
  await once(socket, "message");
  socket.send(JSON.stringify({ id: "1", type: "subscribe", payload: { query: MOVED } }));
  const idle = new WebSocket(there.socketUrl, "graphql-transport-ws");
  await once(idle, "open");
  idle.send(JSON.stringify({ type: "connection_init", payload: headers(token) }));
  const live = async (accept) => {
    const asked = { "content-type": "application/json", accept, ...headers(token) };
    return fetch(there.url, { method: "POST", headers: asked, body: JSON.stringify({ query: MOVED }) });
  };
  const [sse, multipart] = [await live("text/event-stream"), await live('multipart/mixed;subscriptionSpec="1.0"')];
  for (const transport of ["websocket", "sse", "multipart"]) await there.expectSubscriptions(transport, 1);
  return { closed, idle, sse: sse.text(), multipart: multipart.text() };
}

/** A move on one server reaches the other; a stream that is interrupted meanwhile is begun again. */
async function heardAgain(token) {
  for (let latitude = 77.5; ; latitude += 0.5) {
    const moved = await subscribed("websocket", token, MOVED);
    await here.goTo(token, latitude);
    const heard = await moved.first.catch((closed) => closed);
    await moved.close().catch(() => {});
    if (heard.code === undefined) return assert.equal(heard.value.data.locationUpdated.latitude, latitude);
    assert.equal(heard.code, 1012);
    assert.ok(latitude < 80, "the streams are interrupted again and again");
  }
}

for (const [what, interrupt] of Object.entries({
  "a Redis that was away": async () => {
    redis.kill("SIGKILL");
    await once(redis, "exit");
    await pause(500);
    startRedis();
  },
  "a Redis that did not answer for some seconds, though its connections stood": async () => {
    redis.kill("SIGSTOP");
    await pause(6_000);
    redis.kill("SIGCONT");
  },
})) {
  test(`after ${what} clients are told that they may have missed something`, async () => {
    const { token } = await here.signIn("COLLECTOR");
    const streams = await interruptible(token);
    await interrupt();
    assert.deepEqual((await streams.closed)[0], 1012);
    assert.doesNotMatch(await streams.sse, /complete|errors/);
    assert.match(await streams.multipart, /"payload":null,"errors":.*"SUBSCRIPTION_INTERRUPTED"/);
    assert.equal(streams.idle.readyState, WebSocket.OPEN, "who waits for nothing has missed nothing");
    streams.idle.terminate();
    // And afterwards everything is heard again: at once, or after being told once more, by the server whose own connection
    // to Redis came back later.
    await heardAgain(token);
  });
}
