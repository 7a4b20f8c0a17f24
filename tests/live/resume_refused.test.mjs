// Resume tokens that are made up, or stand for what is not kept any more, as each client hears of it; and who comes back with the token
// of another account. Not here: coming back itself (`resume`).
import assert from "node:assert/strict";
import { test } from "node:test";

import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { multipartEvents, openForm, resumeToken, sseEvents, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const CHANGED = "subscription($form: ID!) { submissionChanged(formId: $form) { id data } }";
const MADE_UP = ["", "x", "1-2-3", "1-2-3-4-5", "-1-1-1-1", 7];
/** From a database that has written more. */
const ELSEWHERE = "7fffffffffff-1-1-0";
const RETRIES = 3;

/** What each hears first: `{ next }`, `{ error }` or `{ status, answer }`, how often it connected, and whether it was over then. */
const CLIENTS = {
  "graphql-ws": (xp, token, request) => {
    let connects = 0;
    const connectionParams = () => (connects++, { authorization: `Bearer ${token}` });
    const client = createWsClient({
      url: xp.socketUrl, webSocketImpl: WebSocket, connectionParams, retryAttempts: RETRIES, shouldRetry: () => true,
    });
    return first(client, request, () => connects);
  },
  "graphql-sse": (xp, token, request) => {
    let connects = 0;
    const headers = () => (connects++, { authorization: `Bearer ${token}` });
    return first(createSseClient({ url: xp.url, headers, retryAttempts: RETRIES }), request, () => connects);
  },
  "fetch of server-sent events": async (xp, token, { extensions, ...request }) => {
    const headers = { accept: "text/event-stream", "last-event-id": `${extensions.resumeAfter}` };
    const { response } = await post(xp, token, headers, request);
    return told(response, sseEvents(response), ({ event, data }) => (event === "next" ? JSON.parse(data) : undefined));
  },
  "fetch of multipart": async (xp, token, request) => {
    const { response } = await post(xp, token, { accept: 'multipart/mixed;subscriptionSpec="1.0"' }, request);
    return told(response, multipartEvents(response), ({ payload }) => payload);
  },
};

/** Until the first thing is heard, and for a while after it. */
async function first(client, request, connects) {
  const heard = await new Promise((done) => {
    const heard = { ended: false };
    const end = (more) => (Object.assign(heard, more, { ended: true }), done(heard));
    client.subscribe(request, {
      next: (next) => ((heard.next ??= next), next.errors ? undefined : done(heard)),
      error: (error) => end({ error }),
      complete: () => end({}),
    });
  });
  client.dispose();
  return { ...heard, connects: connects() };
}

async function post(xp, token, headers, request) {
  const control = new AbortController();
  const response = await fetch(xp.url, {
    method: "POST",
    signal: control.signal,
    headers: { "content-type": "application/json", authorization: `Bearer ${token}`, ...headers },
    body: JSON.stringify(request),
  });
  return { response, abort: () => control.abort() };
}

async function told(response, events, read) {
  if (!/event-stream|multipart/.test(response.headers.get("content-type"))) {
    return { status: response.status, next: await response.json(), ended: true };
  }
  let next;
  for await (const event of events) {
    next ??= read(event);
    // What is not read on is closed.
    if (next && !next.errors) return { status: response.status, next, ended: false };
  }
  return { status: response.status, next, ended: true };
}

const codeOf = ({ next, error }) => (next?.errors ?? error)?.[0]?.extensions.code;

let xp, editor, form;
const asked = (resumeAfter) => ({ query: CHANGED, variables: { form }, extensions: { resumeAfter } });

test("tokens that are refused, by each client", async (t) => {
  xp = await start();
  t.after(() => xp.end("SIGKILL"));
  editor = await xp.mint("editor@example.com", 3_600);
  const collector = await xp.mint("collector@example.com", 3_600);
  form = await openForm(xp, editor);
  const old = await resumeToken(xp, editor);
  const all = Object.entries(CLIENTS);

  for (const [name, listen] of all) {
    await t.test(`${name}: what is made up`, async () => {
      for (const token of MADE_UP) {
        // A header without a value is none.
        if (token === "" && name.includes("server-sent")) continue;
        const heard = await listen(xp, editor, asked(token));
        assert.equal(codeOf(heard), "BAD_USER_INPUT", `${token}: ${JSON.stringify(heard)}`);
        assert.ok(heard.ended);
        assert.equal(heard.connects ?? 1, 1, "it does not come back with it");
      }
    });
    await t.test(`${name}: what another database gave out`, async () => {
      assert.equal(codeOf(await listen(xp, editor, asked(ELSEWHERE))), "RESUME_EXPIRED");
    });
  }

  const id = await submit(xp, collector, form, 1);
  for (const [name, listen] of all) {
    await t.test(`${name}: what is kept still comes`, async () => {
      const { next } = await listen(xp, editor, asked(old));
      assert.deepEqual(next.data.submissionChanged, { id, data: { number: 1 } });
    });
  }

  // A server that keeps events for a second removes them when it starts.
  await pause(1_500);
  assert.equal(await xp.stop(), 0);
  await xp.startAgain({ XP_RETENTION_EVENTS: "1s" });
  await submit(xp, collector, form, 2);
  const isGone = async () => codeOf(await CLIENTS["fetch of multipart"](xp, editor, asked(old))) === "RESUME_EXPIRED";
  for (let tries = 0; !(await isGone()); await pause(250)) assert.ok(tries++ < 400, "nothing is removed");
  for (const [name, listen] of all) {
    await t.test(`${name}: what is not kept any more`, async () => {
      const heard = await listen(xp, editor, asked(old));
      assert.equal(codeOf(heard), "RESUME_EXPIRED", JSON.stringify(heard));
      assert.match((heard.next?.errors ?? heard.error)[0].message, /read what you need again/);
      assert.ok(heard.ended);
      assert.equal(heard.connects ?? 1, 1, "it does not come back with it");
    });
  }
  for (const transport of ["websocket", "sse", "multipart"]) await xp.expectSubscriptions(transport, 0);
  assert.equal(await xp.stop(), 0);
});

test("whoever comes back with another account's token gets what they may see themselves", async (t) => {
  xp = await start();
  t.after(() => xp.end("SIGKILL"));
  const as = async (name) => xp.mint(`${name}@example.com`, 3_600);
  const [editor, collector, viewer, admin] = [await as("editor"), await as("collector"), await as("viewer"), await as("admin")];
  form = await openForm(xp, editor);
  const begin = await resumeToken(xp, editor);
  const hidden = await submit(xp, admin, form, 1);
  const own = await submit(xp, collector, form, 2);
  for (const [name, listen] of Object.entries(CLIENTS)) {
    const seen = await listen(xp, editor, asked(begin));
    assert.equal(seen.next.data.submissionChanged.id, hidden, `${name}: the form's owner sees all`);
    const { next } = await listen(xp, collector, asked(begin));
    assert.equal(next.data.submissionChanged.id, own, `${name}: the collector sees only their own`);
  }
  // Who sees none of them hears nothing of them, and then of what they see.
  const { response, abort } = await post(xp, viewer, { accept: "text/event-stream", "last-event-id": begin }, { query: CHANGED, variables: { form } });
  let said = "";
  const reading = (async () => {
    for await (const bytes of response.body) said += Buffer.from(bytes);
  })().catch(() => {});
  await xp.expectSubscriptions("sse", 1);
  await pause(1_500);
  abort();
  await reading;
  assert.equal(said.replaceAll(":\n\n", ""), "");
  assert.equal(await xp.stop(), 0);
});
