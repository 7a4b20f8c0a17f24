// A server of the test's own: XP_BINARY is the program. It runs in an empty folder with demo data, on a free port.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { scratch } from "../processes.mjs";

const binary = process.env.XP_BINARY;
assert.ok(binary, "XP_BINARY is not set: it names the program under test");

const PASSWORD = "xp-graph-demo";

const running = new Set();
process.once("exit", () => running.forEach((server) => server.kill("SIGKILL")));

export async function start(environment = {}) {
  const home = scratch("live");
  return new Xp(home, environment, await run(home, environment));
}

/** The program and where it answers, once it is ready. */
async function run(home, environment) {
  const env = { HOME: home, PATH: process.env.PATH, PORT: "0", ...environment };
  const server = spawn(binary, ["dev"], { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
  running.add(server);
  server.once("exit", () => running.delete(server));
  server.stderr.resume();
  const lines = createInterface({ input: server.stdout });
  let url;
  for await (const line of lines) {
    url = line.match(/GraphQL\s+(http:\S+)/)?.[1];
    if (url) break;
  }
  server.stdout.resume();
  assert.ok(url, "the server did not say where it is");
  while (!(await fetch(new URL("/readyz", url)).catch(() => ({}))).ok) await pause(100);
  return { server, url };
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

class Xp {
  constructor(home, environment, { server, url }) {
    Object.assign(this, { home, environment, server, url, socketUrl: url.replace("http", "ws") });
  }

  /** One operation; it must succeed. */
  async ask(token, query, variables = {}) {
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(this.url, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
    const { data, errors } = await response.json();
    assert.equal(errors, undefined, JSON.stringify(errors));
    return data;
  }

  /** A new session of a demo account. */
  async signIn(name) {
    const config = await (await fetch(new URL("/playground/config.json", this.url))).json();
    const account = config.accounts.find((account) => account.role === name);
    const { me } = await this.ask(account.token, "{ me { email } }");
    const query = `mutation($input: SignInInput!) { signIn(input: $input) {
      accessToken refreshToken session { id } user { id } userErrors { code message } } }`;
    const { signIn } = await this.ask(undefined, query, { input: { email: me.email, password: PASSWORD } });
    assert.deepEqual(signIn.userErrors, []);
    return { token: signIn.accessToken, refresh: signIn.refreshToken, session: signIn.session.id, user: signIn.user.id };
  }

  /** A token of a demo account that ends after so many seconds. */
  async mint(email, seconds, database = "sqlite:xp-dev.db") {
    const env = { DATABASE_URL: database, XP_AUTH_SECRET: "development: everybody knows this secret" };
    const mint = ["token", "mint", "--user", email, "--ttl-seconds", String(seconds)];
    const { stdout } = await promisify(execFile)(binary, mint, { cwd: this.home, env });
    return stdout.trim();
  }

  async goTo(token, latitude, longitude = 13.4) {
    const query = "mutation($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }";
    const point = { timestamp: new Date().toISOString(), latitude, longitude };
    const { recordLocations } = await this.ask(token, query, { input: { points: [point] } });
    assert.equal(recordLocations.acceptedCount, 1);
  }

  endSession(token, id) {
    const query = "mutation($input: RevokeSessionInput!) { revokeSession(input: $input) { userErrors { code } } }";
    return this.ask(token, query, { input: { id } });
  }

  /** How many subscriptions there are, by the metric. */
  async subscriptions(transport) {
    const text = await (await fetch(new URL("/metrics", this.url))).text();
    const line = text.split("\n").find((line) => line.startsWith(`graphql_server_subscriptions{transport="${transport}"}`));
    return Number(line?.split(" ")[1] ?? 0);
  }

  /** Waits until the metric says so. */
  async expectSubscriptions(transport, count) {
    for (let tries = 0; tries < 100; tries++) {
      if ((await this.subscriptions(transport)) === count) return;
      await pause(50);
    }
    assert.equal(await this.subscriptions(transport), count);
  }

  /** Resident memory, KiB. */
  async memory() {
    const status = await readFile(`/proc/${this.server.pid}/status`, "utf8");
    return Number(status.match(/VmRSS:\s+(\d+)/)[1]);
  }

  /** SIGTERM; the exit code. */
  async stop() {
    await this.end("SIGTERM");
    return this.server.exitCode;
  }

  /** Ends it by a signal, if it is running. */
  async end(signal) {
    if (this.server.exitCode !== null || this.server.signalCode !== null) return;
    const ended = once(this.server, "exit");
    this.server.kill(signal);
    await ended;
  }

  /** Starts it again where it was, with what it had stored. */
  async startAgain(environment = {}) {
    const port = new URL(this.url).port;
    Object.assign(this.environment, environment);
    ({ server: this.server } = await run(this.home, { ...this.environment, PORT: port }));
  }
}
