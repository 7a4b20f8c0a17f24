// Two servers behind the shipped nginx, restarted one after the other while many ask: no request fails. XP_BINARY is the
// server's program. Not here: how long a restart takes, and instances that share a database.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { freePort, scratch } from "../processes.mjs";
import { startNginx } from "./proxy.mjs";

const ROUNDS = 3;
const CLIENTS = 8;
const READY_WITHIN = 60_000;

let folder, nginx;
const instances = [];

/** Starts an instance on a database of its own, and waits until it is ready. */
async function start(instance) {
  const env = {
    PATH: process.env.PATH, HOME: folder, PORT: String(instance.port), RUST_LOG: "warn",
    DATABASE_URL: `sqlite:${join(folder, `${instance.port}.db`)}`,
    XP_AUTH_SECRET: "a secret that only this test knows, long enough",
    XP_HTTP_TRUSTED_PROXIES: "127.0.0.1",
  };
  instance.said = "";
  instance.process = spawn(process.env.XP_BINARY, ["serve", "--migrate"], { cwd: folder, env, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [instance.process.stdout, instance.process.stderr]) stream.on("data", (text) => (instance.said += text));
  const ready = async () => (await fetch(`http://127.0.0.1:${instance.port}/readyz`).catch(() => undefined))?.ok;
  for (const until = performance.now() + READY_WITHIN; !(await ready()); await wait(50)) {
    assert.ok(instance.process.exitCode === null && performance.now() < until, `it is not ready: ${instance.said}`);
  }
}

async function stop(instance) {
  if (instance.process?.exitCode !== null) return;
  const ended = once(instance.process, "exit");
  instance.process.kill("SIGTERM");
  const [code] = await ended;
  assert.equal(code, 0, instance.said);
}

before(async () => {
  assert.ok(process.env.XP_BINARY, "XP_BINARY is not set: the server's program");
  folder = scratch("rolling");
  for (let count = 0; count < 2; count++) instances.push({ port: await freePort() });
  await Promise.all(instances.map(start));
  nginx = await startNginx(instances.map(({ port }) => port));
});

after(async () => {
  await nginx?.stop();
  await Promise.all(instances.map(stop));
});

/** One client, which asks one question after the other, by GET and by POST in turn. */
async function asking(goesOn, outcomes) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const { hostname, port } = new URL(nginx.site);
  const ask = (isGet, number) =>
    new Promise((resolve) => {
      // Nothing that nginx keeps: each request reaches an instance.
      const query = `{ a${number}: __typename me { id } }`;
      const path = isGet ? `/graphql?query=${encodeURIComponent(query)}` : "/graphql";
      const headers = { "content-type": "application/json", "apollo-require-preflight": "1" };
      const request = http.request({ hostname, port, path, agent, headers, method: isGet ? "GET" : "POST" }, async (response) => {
        let text = "";
        try {
          for await (const part of response) text += part;
        } catch (error) {
          return resolve(`broken off: ${error.code}`);
        }
        const isAnswered = response.statusCode === 200 && text.includes('"Query"');
        resolve(isAnswered ? "answered" : `${isGet ? "GET" : "POST"} ${response.statusCode}: ${text.slice(0, 80)}`);
      });
      request.on("error", (error) => resolve(`${error.code ?? error.message}`));
      request.end(isGet ? undefined : JSON.stringify({ query }));
    });
  for (let number = 0; goesOn(); number++) {
    const outcome = await ask(number % 2 === 0, number);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    await wait(5);
  }
  agent.destroy();
}

test("a rolling restart fails no request", { timeout: 300_000 }, async () => {
  const outcomes = new Map();
  let isRunning = true;
  const clients = Promise.all(Array.from({ length: CLIENTS }, () => asking(() => isRunning, outcomes)));
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const instance of instances) {
        await stop(instance);
        await start(instance);
      }
    }
  } finally {
    isRunning = false;
    await clients;
  }
  console.log(`${2 * ROUNDS} restarts: ${[...outcomes].map(([what, count]) => `${count} ${what}`).join(", ")}`);
  assert.deepEqual([...outcomes.keys()], ["answered"], nginx.said().slice(-2000));
  assert.ok(outcomes.get("answered") > 200, "there was load");
});
