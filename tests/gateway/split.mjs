// The graph split into four processes, and the whole beside them, over one database of their own: XP_BINARY is the
// program. Nothing is cached, as without a Redis no process knows what another has written.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { scratch } from "../processes.mjs";
import { SPLIT } from "./compose.mjs";

const UNCACHED = { DATABASE_URL: "sqlite:split.db", XP_CACHE_ENABLED: "off" };

/** @returns {Promise<{whole: string, urls: Record<string, string>, close: () => Promise<void>}>} addresses of `/graphql` */
export async function startSplit() {
  const home = scratch("split");
  const running = [];
  const close = async () => {
    for (const { server } of running) server.kill();
    await Promise.all(running.map(({ ended }) => ended));
  };
  try {
    // The whole first: it makes the database and the keys.
    const whole = await startServer(home, [], running, UNCACHED);
    const parts = Object.entries(SPLIT).map(async ([name, domains]) => [
      name,
      await startServer(home, ["--subgraphs", domains], running, UNCACHED),
    ]);
    return { whole, urls: Object.fromEntries(await Promise.all(parts)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A server in this folder, with these settings; it is put among those that are running. */
export async function startServer(home, words, running, settings) {
  const binary = process.env.XP_BINARY;
  assert.ok(binary, "XP_BINARY is not set: it names the program under test");
  const env = { HOME: home, PATH: process.env.PATH, PORT: "0", ...settings };
  const server = spawn(binary, ["dev", ...words], { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
  running.push({ server, ended: once(server, "exit") });
  server.stderr.resume();
  const lines = createInterface({ input: server.stdout });
  let url;
  for await (const line of lines) {
    url = line.match(/GraphQL\s+(http:\S+)/)?.[1];
    if (url) break;
  }
  server.stdout.resume();
  assert.ok(url, `xp dev ${words.join(" ")} did not say where it is`);
  while (!(await fetch(new URL("/readyz", url)).catch(() => ({}))).ok) await sleep(100);
  return url;
}
