// Events as a Redis stream, RabbitMQ and NATS JetStream have them in the end, while brokers and servers are killed: every one that was
// acknowledged, in order for each form, and as CloudEvents that the specification's own library reads. Not here: what an event says
// (the Rust tests).
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";

import amqplib from "amqplib";
import { CloudEvent } from "cloudevents";
import { connect as connectNats } from "nats";

import { scratch } from "../processes.mjs";
import { natsOptions, startNats, startRabbit, startRedis } from "./brokers.mjs";
import { startPostgres } from "./postgres.mjs";
import { openForm, submit } from "./streams.mjs";
import { pause, start } from "./xp.mjs";

const FORMS = 3;
/** Submissions between two kills. */
const BETWEEN = 12;
/** How long it is waited for all events. */
const WITHIN = 120_000;
const KILLS = Number(process.env.XP_SINK_KILLS ?? 6);

let database, brokers, servers;

before(async () => {
  database = await startPostgres();
  const [redis, rabbit, nats] = await Promise.all([startRedis(), startRabbit(), startNats()]);
  brokers = { redis, rabbit, nats };
  await bindQueue(rabbit.url);
  const environment = {
    DATABASE_URL: database?.url ?? `sqlite:${join(scratch("sinks"), "xp.db")}`,
    XP_EVENTS_SINKS: `${redis.url}?stream=events, ${rabbit.url}?exchange=events, ${nats.url}?subject=xp.events`,
    XP_EVENTS_SOURCE: "/tests",
    XP_AUTH_SECRET: "thirty-two characters and more of a secret",
  };
  servers = [await start(environment)];
  servers.push(await start(environment));
});

after(async () => {
  for (const server of servers ?? []) await server.end("SIGKILL");
  for (const broker of Object.values(brokers ?? {})) await broker.close();
  await database?.close();
});

/** A queue for submissions: what no queue is bound for is not kept. */
async function bindQueue(url) {
  const connection = await amqplib.connect(url);
  const channel = await connection.createChannel();
  await channel.assertExchange("events", "topic", { durable: true });
  await channel.assertQueue("submissions", { durable: true });
  await channel.bindQueue("submissions", "events", "xp.submission.created.#");
  await connection.close();
}

const isSubmission = ({ type }) => type === "xp.submission.created";

/** What each broker has, as text of CloudEvents, in its order. */
const READERS = {
  redis() {
    const words = ["-u", brokers.redis.url, "--json", "XRANGE", "events", "-", "+"];
    const entries = JSON.parse(execFileSync("redis-cli", words, { encoding: "utf8", maxBuffer: 1 << 28 }));
    return entries.map(([, fields]) => fields[fields.indexOf("event") + 1]);
  },
  async rabbit() {
    const connection = await amqplib.connect(brokers.rabbit.url);
    const channel = await connection.createChannel();
    const texts = [];
    for (let message; (message = await channel.get("submissions", { noAck: false })); ) {
      assert.equal(message.properties.contentType, "application/cloudevents+json");
      assert.equal(message.properties.messageId, JSON.parse(message.content).id);
      texts.push(message.content.toString());
    }
    // What was not confirmed is there again for the next look.
    await connection.close();
    return texts;
  },
  async nats() {
    const connection = await connectNats(natsOptions(brokers.nats));
    const manager = await connection.jetstreamManager();
    const { state } = await manager.streams.info("XP_EVENTS");
    const texts = [];
    for (let seq = state.first_seq; seq <= state.last_seq; seq++) {
      texts.push((await manager.streams.getMessage("XP_EVENTS", { seq })).string());
    }
    await connection.close();
    return texts;
  },
};

/** What the sinks have of submissions: each event once it is valid, by broker. */
async function heard(broker) {
  const events = (await READERS[broker]()).map((text) => new CloudEvent(JSON.parse(text)));
  return events.filter(isSubmission);
}

test("every event is in every sink, in order, whoever is killed", async () => {
  const tokens = await Promise.all(servers.map((xp) => xp.signIn("ADMIN").then(({ token }) => token)));
  const forms = [];
  for (let count = 0; count < FORMS; count++) forms.push(await openForm(servers[0], tokens[0]));
  const acknowledged = new Map(forms.map((form) => [form, []]));
  let n = 0;
  const submitTo = async (index) => {
    const form = forms[n % FORMS];
    acknowledged.get(form).push(await submit(servers[index], tokens[index], form, n++));
  };
  const kinds = ["redis", "rabbit", "nats", "server"];
  for (let kill = 0; kill < KILLS; kill++) {
    const kind = kinds[kill % kinds.length];
    for (let count = 0; count < BETWEEN; count++) await submitTo(count % 2);
    if (kind === "server") {
      const index = kill % 2;
      await servers[index].end("SIGKILL");
      for (let count = 0; count < BETWEEN; count++) await submitTo(1 - index);
      await servers[index].startAgain();
    } else {
      await brokers[kind].kill();
      for (let count = 0; count < BETWEEN; count++) await submitTo(count % 2);
      await brokers[kind].start();
    }
  }
  for (const broker of Object.keys(READERS)) {
    const total = [...acknowledged.values()].flat();
    let events;
    for (const until = Date.now() + WITHIN; ; await pause(500)) {
      events = await heard(broker).catch(() => []);
      const ids = new Set(events.map(({ data }) => data.submissionId));
      if (total.every((id) => ids.has(id))) break;
      assert.ok(Date.now() < until, `${broker} has ${ids.size} of ${total.length}`);
    }
    for (const [form, expected] of acknowledged) {
      const own = events.filter(({ data }) => data.formId === form).map(({ data }) => data.submissionId);
      assert.deepEqual([...new Set(own)], expected, `${broker}: in the order of the form`);
    }
    const ids = events.map(({ id }) => id);
    for (const event of events) {
      assert.equal(event.source, "/tests");
      assert.equal(event.partitionkey, event.data.formId);
    }
    const duplicates = ids.length - new Set(ids).size;
    if (broker === "nats") assert.equal(duplicates, 0, "JetStream leaves out what has come before");
    console.log(`${broker}: ${total.length} submissions after ${KILLS} kills, ${duplicates} duplicates`);
  }
});
