// Starts a gateway of federation/gateways/ as its README does, over a supergraph in a file, on a free port.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const READY_MS = 60_000;

/** How each is run, in its folder. SUPERGRAPH, HOST and PORT are in the environment. */
const COMMANDS = {
  apollo: ["gateway.mjs"],
  hive: ["node_modules/@graphql-hive/gateway/dist/bin.js", "supergraph", "--config-path", "gateway.config.mjs"],
};

/** The gateways to test, from XP_GATEWAYS. */
export const names = (process.env.XP_GATEWAYS ?? "apollo").split(",");

/** @returns {Promise<{url: string, close: () => Promise<void>}>} */
export async function startGateway(name, supergraph) {
  const folder = fileURLToPath(new URL(`../../federation/gateways/${name}/`, import.meta.url));
  assert.ok(existsSync(`${folder}node_modules`), `${name} is not installed: run npm ci in federation/gateways/${name}`);
  const port = await freePort();
  const child = spawn(process.execPath, COMMANDS[name], {
    cwd: folder,
    env: { ...process.env, SUPERGRAPH: supergraph, HOST: "127.0.0.1", PORT: String(port), NODE_ENV: "production" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said += text));
  const ended = once(child, "exit");
  const url = `http://127.0.0.1:${port}/graphql`;
  const close = async () => {
    child.kill();
    await Promise.race([ended, sleep(5_000).then(() => child.kill("SIGKILL"))]);
  };
  const until = Date.now() + READY_MS;
  while (!(await answers(url))) {
    if (child.exitCode !== null || Date.now() > until) {
      await close();
      assert.fail(`${name} did not start:\n${said}`);
    }
    await sleep(100);
  }
  return { url, close };
}

async function answers(url) {
  try {
    const body = JSON.stringify({ query: "{ __typename }" });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.ok;
  } catch {
    return false;
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
