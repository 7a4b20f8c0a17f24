// Apollo's subgraph compatibility suite (npm @apollo/federation-subgraph-compatibility-tests), as it is, but for what it is
// started with: Docker, Rover and Apollo Router. Its schema `products` is served by the engine (schema/engine/examples/products;
// XP_PRODUCTS is the program), its other two subgraphs are its own, its router is Apollo Gateway.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { compose } from "./compose.mjs";
import { freePort } from "../processes.mjs";
import { startGateway } from "./gateways.mjs";
import { ask } from "./xp.mjs";

const TESTS = 23;
const READY_MS = 30_000;

/** The version that we link is newer than the suite: its pattern ends with 2.3. */
const LINK_IS_NEWER = /Expected pattern: .*2\\\.0\|2\\\.1\|2\\\.2\|2\\\.3.*\n.*Received string: +.*"2\.9"/;

const program = process.env.XP_PRODUCTS;
assert.ok(program, "XP_PRODUCTS is not set: cargo build -p engine --example products, and name the program");

const require = createRequire(import.meta.url);
const suite = dirname(require.resolve("@apollo/federation-subgraph-compatibility-tests/package.json"));
const subgraph = (name) => join(suite, "dist/subgraphs", name, "index.js");

const running = [];
let scratch;
let results;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-suite-"));
  const [products, users, inventory] = await Promise.all([freePort(), freePort(), freePort()]);
  start(program, [], { PRODUCTS_ADDRESS: `127.0.0.1:${products}` });
  start(process.execPath, [subgraph("users")], { USERS_PORT: String(users) });
  start(process.execPath, [subgraph("inventory")], { INVENTORY_PORT: String(inventory) });
  const urls = {
    products: `http://127.0.0.1:${products}/graphql`,
    users: `http://127.0.0.1:${users}/`,
    inventory: `http://127.0.0.1:${inventory}/`,
  };
  const sdls = {};
  for (const [name, url] of Object.entries(urls)) sdls[name] = await sdlOf(url);
  const { supergraph: text, errors } = compose(sdls, urls);
  assert.deepEqual(errors, []);
  const supergraph = join(scratch, "supergraph.graphql");
  await writeFile(supergraph, text);
  const gateway = await startGateway("apollo", { supergraph, subgraphs: urls, scratch });
  running.push(gateway.close);
  results = await runSuite({ PRODUCTS_URL: urls.products, ROUTER_URL: gateway.url });
});

after(async () => {
  for (const close of running) await close();
  if (scratch) await rm(scratch, { recursive: true });
});

describe("Apollo's compatibility suite", () => {
  test("all of it has run", () => assert.equal(results.length, TESTS));

  test("everything passes but what is said of the version of the link", () => {
    const failed = results.filter(({ status }) => status !== "passed");
    for (const { fullName, failureMessages } of failed) {
      assert.equal(fullName, "@link", failureMessages.join("\n"));
      assert.match(plain(failureMessages.join("\n")), LINK_IS_NEWER);
    }
    assert.equal(failed.length, 1, "@link passes: LINK_IS_NEWER is no longer needed");
  });
});

function start(program, words, environment) {
  const child = spawn(program, words, { env: { ...process.env, ...environment }, stdio: "ignore" });
  const ended = once(child, "exit");
  running.push(async () => {
    child.kill("SIGKILL");
    await ended;
  });
}

async function sdlOf(url) {
  for (const until = Date.now() + READY_MS; ; await sleep(100)) {
    const { data } = await ask(url, { query: "{ _service { sdl } }" }).catch(() => ({}));
    if (data) return data._service.sdl;
    assert.ok(Date.now() < until, `${url} does not answer`);
  }
}

/** The outcomes of its tests. */
async function runSuite(environment) {
  const output = join(scratch, "results.json");
  const config = {
    rootDir: join(suite, "dist/tests"),
    testEnvironment: "node",
    testMatch: ["**/*.test.js"],
    testPathIgnorePatterns: [],
    haste: { retainAllFiles: true },
    transform: {},
    moduleNameMapper: { "^\\.\\./utils/client$": fileURLToPath(new URL("suite-client.cjs", import.meta.url)) },
  };
  const words = [require.resolve("jest/bin/jest"), "--ci", "--json", `--outputFile=${output}`, `--config=${JSON.stringify(config)}`];
  const env = { ...process.env, ...environment };
  // It ends with 1 where a test has failed.
  const { stderr } = await promisify(execFile)(process.execPath, words, { env }).catch((error) => error);
  const { testResults } = JSON.parse(await readFile(output, "utf8").catch(() => assert.fail(stderr)));
  return testResults.flatMap(({ assertionResults, message }) => {
    assert.ok(assertionResults.length > 0, message);
    return assertionResults;
  });
}

/** Without colours. */
function plain(text) {
  return text.replaceAll(/\u001b\[[0-9;]*m/g, "");
}
