// Starts a gateway of federation/gateways/ as docs/gateways.md does, on a free port, before the subgraphs of a test. The two
// routers are programs that `routers/build` builds; they are asked for by name (XP_GATEWAYS), as `./test routers` does.
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

/** The folder of the routers' programs. */
const ROUTERS = join(process.env.XP_ROUTERS ?? join(process.env.HOME ?? "", ".cache/xp-routers"), "bin");

/** Programs of their own, which npm does not have. */
const BUILT = {
  "apollo-router": {
    folder: "apollo-router",
    program: join(ROUTERS, "router"),
    command: async ({ port, scratch, folder, supergraph, secret, change }) => {
      const config = join(scratch, "router.yaml");
      const given = await readFile(join(folder, "router.yaml"), "utf8");
      const changes = {
        "listen: 127.0.0.1:4000": `listen: 127.0.0.1:${port}`,
        "listen: 127.0.0.1:8088": "listen: 127.0.0.1:0",
        "scripts: rhai": `scripts: ${join(folder, "rhai")}`,
      };
      await writeFile(config, proving(changed(given, { ...changes, ...change?.(port) }), secret));
      return [join(ROUTERS, "router"), "--config", config, "--supergraph", supergraph];
    },
    env: () => ({ APOLLO_TELEMETRY_DISABLED: "true" }),
  },
  "hive-router": {
    folder: "hive-router",
    program: join(ROUTERS, "hive_router"),
    command: async ({ port, scratch, folder, supergraph, secret, change }) => {
      const config = join(scratch, "router.config.yaml");
      const given = await readFile(join(folder, "router.config.yaml"), "utf8");
      const changes = { "port: 4000": `port: ${port}`, "path: ../../supergraph.graphql": `path: ${supergraph}` };
      await writeFile(config, proving(changed(given, { ...changes, ...change?.(port) }), secret));
      return [join(ROUTERS, "hive_router")];
    },
    env: ({ scratch }) => ({ ROUTER_CONFIG_FILE_PATH: join(scratch, "router.config.yaml") }),
  },
};

/** The program of a router. */
export const programOf = (router) => BUILT[router].program;

/** A configuration with these texts, each of which is there once, in the place of others. */
function changed(config, changes) {
  for (const [old, text] of Object.entries(changes)) {
    assert.equal(config.split(old).length, 2, `the configuration has once: ${old}`);
    config = config.replace(old, () => text);
  }
  return config;
}

/** Turns on what a configuration has as a comment: with a secret the router proves that it is one. */
function proving(config, secret) {
  if (secret === undefined) return config;
  const lines = config.match(/^ {2}# subgraphs:\n(?: {2}#.*\n)+/m)?.[0];
  assert.ok(lines, "the configuration has the part for production as a comment");
  const part = lines.replaceAll(/^ {2}# /gm, "  ").replace(/(value: )("[^"]*"|\.\.\.)/, `$1"${secret}"`);
  assert.ok(part.includes(secret), part);
  return config.replace(lines, () => part);
}

// Grafbase's program comes for Linux on x86-64 only.
if (process.platform !== "linux" || process.arch !== "x64") delete GATEWAYS.grafbase;

/** The gateways to test: all that npm has, or those of XP_GATEWAYS. */
export const names = process.env.XP_GATEWAYS?.split(",") ?? Object.keys(GATEWAYS);

/**
 * @param {{supergraph: string, subgraphs: Record<string, string>, scratch: string, home?: string, secret?: string, change?: (port: number) => Record<string, string>}} before
 *   the file of the supergraph, the addresses of its subgraphs for who composes by itself, a folder for files, the server
 *   whose keys tokens are checked with; for routers the secret by which they prove that they are some, and texts of the
 *   configuration with others in their place
 * @returns {Promise<{name: string, url: string, socketUrl: string, close: () => Promise<void>}>}
 */
export async function startGateway(name, { supergraph, subgraphs, scratch, home = base, secret, change }) {
  const { folder: place, program, command, env = () => ({}), socket = "/graphql" } = GATEWAYS[name] ?? BUILT[name];
  const folder = fileURLToPath(new URL(`../../federation/gateways/${place}/`, import.meta.url));
  if (program) assert.ok(existsSync(program), `${name} is not built: run tests/gateway/routers/build`);
  else assert.ok(existsSync(`${folder}node_modules`), `${name} is not installed: run npm ci in federation/gateways/${place}`);
  const port = await freePort();
  const settings = {
    SUPERGRAPH: supergraph,
    HOST: "127.0.0.1",
    PORT: String(port),
    XP_JWKS: new URL("/.well-known/jwks.json", home).href,
    NODE_ENV: "production",
    HOME: scratch,
    ...env({ scratch }),
  };
  const url = `http://127.0.0.1:${port}/graphql`;
  const started = await command({ port, subgraphs, scratch, folder, supergraph, secret, change });
  const { said, close } = await startProgram(name, started, {
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
