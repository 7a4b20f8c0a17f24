// Message brokers of the test's own, on free ports of this machine, which keep what they have confirmed when they are killed: Redis,
// RabbitMQ, and NATS with JetStream. Not here: what is sent over them.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createConnection } from "node:net";
import { join } from "node:path";

import { freePort, scratch } from "../processes.mjs";
import { pause } from "./xp.mjs";

/** RabbitMQ takes its time. */
const STARTS_WITHIN = 90_000;

/** Whether somebody listens on a port. */
async function listens(port) {
  const socket = createConnection({ port, host: "127.0.0.1" });
  return new Promise((done) => {
    socket.once("connect", () => done(true)).once("error", () => done(false));
  }).finally(() => socket.destroy());
}

/** Has signs that URLs escape. */
const NATS_PASSWORD = "p@ss/word";

const started = new Set();
process.once("exit", () => started.forEach((broker) => broker.signal("SIGKILL")));

class Broker {
  constructor(name, url, [program, ...words], { port, cwd, env, onClose = () => {} }) {
    Object.assign(this, { name, url, program, words, port, cwd, env, onClose });
    started.add(this);
  }

  /** Starts it, on its port and with what it has stored. */
  async start() {
    const env = { ...process.env, ...this.env };
    // In a group of its own: RabbitMQ's program starts others.
    this.server = spawn(this.program, this.words, { cwd: this.cwd, env, stdio: "ignore", detached: true });
    for (const until = Date.now() + STARTS_WITHIN; !(await listens(this.port)); await pause(100)) {
      assert.ok(this.server.exitCode === null && Date.now() < until, `${this.name} did not start`);
    }
    return this;
  }

  signal(signal) {
    if (this.server && this.server.exitCode === null && this.server.signalCode === null) {
      try {
        process.kill(-this.server.pid, signal);
      } catch {
        // It has just ended.
      }
    }
  }

  async kill() {
    const ended = once(this.server, "exit");
    this.signal("SIGKILL");
    await ended;
    while (await listens(this.port)) await pause(50);
  }

  async close() {
    await this.kill();
    this.onClose();
  }
}

export async function startRedis() {
  const [port, cwd] = [await freePort(), scratch("redis")];
  const options = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
  return new Broker("Redis", `redis://127.0.0.1:${port}`, ["redis-server", ...options], { port, cwd }).start();
}

/** How to connect to NATS beside the server. */
export const natsOptions = (broker) => ({ servers: `127.0.0.1:${broker.port}`, user: "xp", pass: NATS_PASSWORD });

export async function startNats() {
  const [port, cwd] = [await freePort(), scratch("nats")];
  const account = ["--user", "xp", "--pass", NATS_PASSWORD];
  const options = ["--addr", "127.0.0.1", "--port", `${port}`, "--jetstream", "--store_dir", cwd, ...account];
  const url = `nats://xp:${encodeURIComponent(NATS_PASSWORD)}@127.0.0.1:${port}`;
  return new Broker("NATS", url, ["nats-server", ...options], { port, cwd }).start();
}

export async function startRabbit() {
  const [port, mapper, distribution, cwd] = [await freePort(), await freePort(), await freePort(), scratch("rabbitmq")];
  const env = {
    HOME: cwd,
    ERL_EPMD_PORT: `${mapper}`,
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_NODENAME: `xp-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: `${port}`,
    RABBITMQ_DIST_PORT: `${distribution}`,
    RABBITMQ_MNESIA_BASE: join(cwd, "data"),
    RABBITMQ_LOG_BASE: join(cwd, "log"),
    RABBITMQ_PID_FILE: join(cwd, "pid"),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(cwd, "plugins"),
    RABBITMQ_CONFIG_FILE: join(cwd, "none"),
  };
  // The program that knows the ports of Erlang's nodes goes on by itself.
  const onClose = () => spawnSync("epmd", ["-port", `${mapper}`, "-kill"], { env: { ...process.env, ...env } });
  const url = `amqp://guest:guest@127.0.0.1:${port}/%2f`;
  return new Broker("RabbitMQ", url, ["/usr/lib/rabbitmq/bin/rabbitmq-server"], { port, cwd, env, onClose }).start();
}
