// Webhooks as a receiver sees them: what comes is verified by the library of the makers of Standard Webhooks, from receivers that are
// slow, away, gone or wrong for a while; and two servers on one database, of which one is killed in the middle again and again, lose
// nothing. XP_KILLS says how often, XP_WEBHOOKS_DATABASE on which empty database; a PostgreSQL of the test's own is taken where its programs
// are found. Not here: who may have webhooks (`tests/it/webhooks.rs`).
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";

import { Webhook } from "standardwebhooks";

import { freePort, scratch } from "../processes.mjs";
import { startPostgres } from "./postgres.mjs";
import { openForm, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const KILLS = Number(process.env.XP_KILLS ?? 3);
/** How long anything may take on a busy machine, milliseconds. */
const PATIENCE = 180_000;
const ASK_EVERY = 200;
const SEND_WITHIN = 10_000;
const SUBMIT = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } } }";
const CREATE = `mutation($input: CreateWebhookInput!) { createWebhook(input: $input) {
  webhook { id } secret userErrors { code message } } }`;
const STATE = `query($id: ID!) { webhook(id: $id) { isEnabled disabledReason
  deliveries(first: 100) { nodes { id status attempts lastStatusCode lastError } } } }`;

/** A receiver that answers each path by a function of its own: (message, how many came before) to a status, none: never. */
async function receiver(answers) {
  const got = new Map(Object.keys(answers).map((path) => [path, []]));
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const path = request.url.slice(1);
    const message = { headers: request.headers, body, json: JSON.parse(body) };
    const status = await answers[path](message, got.get(path).length);
    got.get(path).push({ ...message, status });
    if (status) response.writeHead(status).end("thrown away".repeat(1_000));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = (path) => `http://127.0.0.1:${server.address().port}/${path}`;
  return { got: (path) => got.get(path), url, close: () => (server.closeAllConnections(), server.close()) };
}

async function until(holds, what) {
  for (let tries = 0; !(await holds()); tries++) {
    assert.ok(tries * ASK_EVERY < PATIENCE, what());
    await pause(ASK_EVERY);
  }
}

/** What a message says, once it is known that it is signed with this secret. */
function verified(secret, { headers, body }) {
  const verifier = new Webhook(secret);
  const message = verifier.verify(body, headers);
  return message;
}

async function createWebhook(xp, token, url) {
  const input = { url, events: ["SUBMISSION_CREATED"] };
  const { createWebhook: made } = await xp.ask(token, CREATE, { input });
  assert.deepEqual(made.userErrors, []);
  return { id: made.webhook.id, secret: made.secret };
}

test("what comes is verified by the library, and nobody waits for a receiver that is not well", async () => {
  const xp = await start();
  const { token } = await xp.signIn("ADMIN");
  const form = await openForm(xp, token);
  const away = `http://127.0.0.1:${await freePort()}/`;
  const at = await receiver({
    well: () => 200,
    slow: () => undefined,
    gone: () => 410,
    recovering: (_, before) => (before === 0 ? 500 : 204),
  });
  const hooks = {};
  for (const name of ["well", "slow", "gone", "recovering"]) hooks[name] = await createWebhook(xp, token, at.url(name));
  hooks.away = await createWebhook(xp, token, away);
  const ids = [];
  for (let number = 1; number <= 5; number++) ids.push(await submit(xp, token, form, number));
  await until(() => at.got("well").length === 5, () => `${at.got("well").length} of 5 came`);
  const verifier = new Webhook(hooks.well.secret);
  at.got("well").forEach(({ headers, body }, index) => {
    const verified = verifier.verify(body, headers);
    assert.equal(verified.type, "submission.created");
    assert.equal(verified.data.id, ids[index], "in order");
    assert.deepEqual(verified.data.data, { number: index + 1 });
    assert.throws(() => verifier.verify(body.replace("created", "removed"), headers));
    assert.throws(() => new Webhook(hooks.slow.secret).verify(body, headers));
  });
  await until(() => at.got("recovering").length >= 6, () => `${at.got("recovering").length} of 6 attempts`);
  const attempts = at.got("recovering").map(({ json }) => json.data.data.number);
  assert.deepEqual(attempts, [1, 1, 2, 3, 4, 5], "the second waits until the first has come");
  const [first, second] = at.got("recovering").map(({ headers }) => headers["webhook-id"]);
  assert.equal(first, second, "one id for all attempts");

  const state = async (name) => (await xp.ask(token, STATE, { id: hooks[name].id })).webhook;
  await until(async () => !(await state("gone")).isEnabled, () => "the receiver is gone");
  assert.equal((await state("gone")).disabledReason, "The receiver answered 410 Gone.");
  await until(async () => (await state("away")).deliveries.nodes.some(({ attempts }) => attempts > 0), () => "away");
  assert.equal((await state("away")).deliveries.nodes.find(({ attempts }) => attempts > 0).lastError, "The connection was refused.");
  assert.ok((await state("slow")).deliveries.nodes.every(({ status }) => status === "PENDING"));

  const rotate = "mutation($id: ID!) { rotateWebhookSecret(input: { id: $id }) { secret } }";
  const { secret } = (await xp.ask(token, rotate, { id: hooks.well.id })).rotateWebhookSecret;
  await submit(xp, token, form, 6);
  await until(() => at.got("well").length === 6, () => "the sixth");
  const { headers, body } = at.got("well")[5];
  for (const good of [hooks.well.secret, secret]) assert.equal(new Webhook(good).verify(body, headers).data.data.number, 6);
  at.close();
  assert.equal(await xp.stop(), 0, "it ends in order, with an attempt under way");
});

test(`each submission arrives, in order, while servers are killed ${KILLS} times`, async (context) => {
  const given = process.env.XP_WEBHOOKS_DATABASE;
  const postgres = given ? undefined : await startPostgres();
  const database = given ?? postgres?.url ?? `sqlite:${join(scratch("webhooks"), "shared.db")}`;
  const environment = { DATABASE_URL: database, XP_WEBHOOKS_TIMEOUT: "2s" };
  // One after the other: the first one fills the database.
  const servers = [await start(environment), await start(environment)];
  const { token } = await servers[0].signIn("ADMIN");
  const long = await servers[0].mint("admin@example.com", 20_000, database);
  const forms = [];
  for (let count = 0; count < 3; count++) forms.push(await openForm(servers[0], token));
  let busy = 0;
  // Takes its time, and fails now and then.
  const at = await receiver({
    hook: async () => {
      await pause(Math.random() * 20);
      return ++busy % 61 === 0 ? 503 : 200;
    },
  });
  const { secret } = await createWebhook(servers[0], token, at.url("hook"));
  let isOver = false;
  const acknowledged = new Map(forms.map((form) => [form, []]));
  const send = (input, number) => {
    const { url } = servers[number % servers.length];
    const headers = { "content-type": "application/json", authorization: `Bearer ${long}` };
    const request = { method: "POST", headers, body: JSON.stringify({ query: SUBMIT, variables: { input } }) };
    const answer = fetch(url, { ...request, signal: AbortSignal.timeout(SEND_WITHIN) }).then((response) => response.json());
    return answer.then(({ data }) => data?.createSubmission?.submission?.id).catch(() => undefined);
  };
  // One writer a form: what it sends next happens after what was acknowledged before.
  const writers = forms.map(async (formId) => {
    for (let number = 1; !isOver; number++) {
      const input = { formId, clientId: randomUUID(), data: { number } };
      for (let tries = 0; !(await send(input, number + tries)); tries++) {
        assert.ok(tries * ASK_EVERY < PATIENCE, `${number} is not taken`);
        await pause(ASK_EVERY);
      }
      acknowledged.get(formId).push(number);
      await pause(100);
    }
  });
  for (let kill = 0; kill < KILLS; kill++) {
    const before = at.got("hook").length;
    await until(() => at.got("hook").length > before + 20, () => "deliveries go on");
    const server = servers[kill % servers.length];
    await server.end("SIGKILL");
    await server.startAgain();
  }
  isOver = true;
  await Promise.all(writers);
  const arrived = () => {
    const firsts = new Map(forms.map((form) => [form, []]));
    for (const { json, status } of at.got("hook")) {
      const numbers = firsts.get(json.data.form.id);
      const { number } = json.data.data;
      if (status === 200 && !numbers.includes(number)) numbers.push(number);
    }
    return firsts;
  };
  const missing = () => {
    const firsts = arrived();
    return forms.flatMap((form) => acknowledged.get(form).filter((number) => !firsts.get(form).includes(number)));
  };
  await until(() => missing().length === 0, () => `not delivered: ${missing()}`);
  for (const form of forms) assert.deepEqual(arrived().get(form), acknowledged.get(form), "each, in order");
  const ids = new Map();
  let duplicates = 0;
  for (const { headers, body, json, status } of at.got("hook")) {
    const message = verified(secret, { headers, body });
    assert.deepEqual(message, json);
    const id = headers["webhook-id"];
    assert.equal(ids.get(json.data.id) ?? id, id, "one id for each submission");
    duplicates += Number(status === 200 && ids.has(`${id} taken`));
    ids.set(json.data.id, id);
    if (status === 200) ids.set(`${id} taken`, id);
  }
  const count = forms.reduce((sum, form) => sum + acknowledged.get(form).length, 0);
  context.diagnostic(`${postgres?.version ?? database.split(":")[0]}: ${count} submissions, ${at.got("hook").length} attempts, ${duplicates} came twice, 0 lost`);
  at.close();
  for (const server of servers) await server.end("SIGTERM");
  await postgres?.close();
});
