// Starts a gateway of federation/gateways/ as docs/gateways.md does, on a free port, before the subgraphs of a test.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, startProgram } from "../processes.mjs";
import { SPLIT } from "./compose.mjs";
import { base } from "./xp.mjs";

const READY_MS = 60_000;
const HIVE = ["node_modules/@graphql-hive/gateway/dist/bin.js", "supergraph", "--config-path", "gateway.config.mjs"];
const GRAFBASE = "node_modules/@grafbase/cli-x86_64-unknown-linux-musl/grafbase";

/** Each gateway's folder and command. SUPERGRAPH, HOST, PORT and XP_JWKS are in the environment. */
const GATEWAYS = {
  apollo: { folder: "apollo", command: () => [process.execPath, "gateway.mjs"] },
  hive: { folder: "hive", command: () => [process.execPath, ...HIVE] },
  // The same gateway with the planner of Hive Router, which is in Rust.
  "hive-router-runtime": { folder: "hive", command: () => [process.execPath, ...HIVE, "--hive-router-runtime"] },
  grafbase: {
    folder: "grafbase",
    socket: "/ws",
    command: async ({ port, subgraphs, scratch, folder }) => {
      const config = join(scratch, "grafbase.toml");
      await writeFile(config, atAddresses(await readFile(join(folder, "grafbase.toml"), "utf8"), subgraphs));
      return [GRAFBASE, "dev", "--config", config, "--listen-address", `127.0.0.1:${port}`];
    },
  },
};

// Grafbase's program comes for Linux on x86-64 only.
if (process.platform !== "linux" || process.arch !== "x64") delete GATEWAYS.grafbase;

/** The gateways to test: all, or those of XP_GATEWAYS. */
export const names = process.env.XP_GATEWAYS?.split(",") ?? Object.keys(GATEWAYS);

/**
 * @param {{supergraph: string, subgraphs: Record<string, string>, scratch: string, home?: string}} before the file of the
 *   supergraph, the addresses of its subgraphs for who composes by itself, a folder for files, and the server whose keys
 *   tokens are checked with
 * @returns {Promise<{name: string, url: string, socketUrl: string, close: () => Promise<void>}>}
 */
export async function startGateway(name, { supergraph, subgraphs, scratch, home = base }) {
  const { folder: place, command, socket = "/graphql" } = GATEWAYS[name];
  const folder = fileURLToPath(new URL(`../../federation/gateways/${place}/`, import.meta.url));
  assert.ok(existsSync(`${folder}node_modules`), `${name} is not installed: run npm ci in federation/gateways/${place}`);
  const port = await freePort();
  const settings = {
    SUPERGRAPH: supergraph,
    HOST: "127.0.0.1",
    PORT: String(port),
    XP_JWKS: new URL("/.well-known/jwks.json", home).href,
    NODE_ENV: "production",
    HOME: scratch,
  };
  const url = `http://127.0.0.1:${port}/graphql`;
  const { said, close } = await startProgram(name, await command({ port, subgraphs, scratch, folder }), {
    isReady: () => answers(url),
    within: READY_MS,
    cwd: folder,
    env: { ...process.env, ...settings },
  });
  return { name, url, socketUrl: `ws://127.0.0.1:${port}${socket}`, close, said };
}

/** The configuration of the repository, with these subgraphs in the place of its own; ours have subscriptions. */
function atAddresses(config, subgraphs) {
  const sections = config.split(/^(?=\[)/m).filter((section) => !section.startsWith("[subgraphs."));
  for (const [name, url] of Object.entries(subgraphs)) {
    const socket = name === "xp" || name in SPLIT ? `websocket_url = "${url.replace("http", "ws")}"\n` : "";
    sections.push(`\n[subgraphs.${name}]\nintrospection_url = "${url}"\n${socket}`);
  }
  return sections.join("");
}

async function answers(url) {
  try {
    const body = JSON.stringify({ query: "{ __typename }" });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return response.ok && (await response.json()).data?.__typename === "Query";
  } catch {
    return false;
  }
}
