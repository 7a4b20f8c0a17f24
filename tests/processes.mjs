// Programs that tests start on a free port of this machine, and end again, and the folders they run in. Not here: which
// programs, and with what.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

/** How long a program has to end after SIGTERM, milliseconds. */
const ENDS_WITHIN = 5_000;
/** How often it is asked whether a program is ready, milliseconds. */
const ASK_EVERY = 50;

/** A new folder of this name, which is removed when the test's process ends, also where it fails. */
export function scratch(name) {
  const folder = mkdtempSync(join(tmpdir(), `xp-${name}-`));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/**
 * Starts a program and waits until `isReady()` is true.
 * @param {string} name what it is called where it does not start
 * @param {[string, ...string[]]} command the program and its arguments
 * @param {{isReady: () => Promise<boolean>, within: number, cwd?: string, env?: Record<string, string>}} how `within`:
 *   milliseconds that it may take to get ready
 * @returns {Promise<{said: () => string, close: () => Promise<void>}>} what it has written; ends it
 */
export async function startProgram(name, [program, ...words], { isReady, within, cwd, env }) {
  const child = spawn(program, words, { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  let failure;
  child.on("error", (error) => (failure = error));
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (said += text));
  const hasEnded = () => failure !== undefined || child.exitCode !== null || child.signalCode !== null;
  const ended = once(child, "close").catch(() => {});
  const close = async () => {
    if (hasEnded()) return;
    child.kill();
    await Promise.race([ended, wait(ENDS_WITHIN, undefined, { ref: false }).then(() => child.kill("SIGKILL"))]);
  };
  const until = performance.now() + within;
  while (!(await isReady())) {
    if (hasEnded() || performance.now() > until) {
      await close();
      assert.fail(`${name} did not start: ${failure?.message ?? ""}\n${said}`);
    }
    await wait(ASK_EVERY);
  }
  return { said: () => said, close };
}
