// A PostgreSQL of the test's own, with an empty database, where its programs are on this machine. Not here: what is stored there.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { scratch } from "../processes.mjs";
import { pause } from "./xp.mjs";

const DEBIAN = "/usr/lib/postgresql";

/** The folder of its programs; none where they are not installed. */
function programs() {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).sort().reverse() : [];
  const debian = versions.map((version) => join(DEBIAN, version, "bin"));
  const folders = [process.env.XP_POSTGRES, ...debian, ...process.env.PATH.split(":")];
  return folders.find((folder) => folder && existsSync(join(folder, "initdb")));
}

/** It refuses to run as root, so root runs it as the account that the package made. */
function account() {
  if (process.getuid() !== 0) return {};
  const id = (kind) => Number(execFileSync("id", [kind, "postgres"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}

/** @returns {Promise<undefined | {url: string, version: string, close: () => Promise<void>}>} */
export async function startPostgres() {
  const found = programs();
  if (!found) return undefined;
  const folder = scratch("postgres");
  const options = { ...account(), cwd: folder, stdio: "ignore" };
  if (options.uid) chownSync(folder, options.uid, options.gid);
  const data = join(folder, "data");
  const wanted = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata", data];
  execFileSync(join(found, "initdb"), wanted, options);
  const settings = ["listen_addresses=", "fsync=off", "full_page_writes=off", `unix_socket_directories=${folder}`];
  const server = spawn(join(found, "postgres"), ["-D", data, ...settings.flatMap((setting) => ["-c", setting])], options);
  process.once("exit", () => server.kill("SIGKILL"));
  const connection = ["--host", folder, "--username", "postgres"];
  const isReady = () => {
    try {
      execFileSync(join(found, "pg_isready"), connection, options);
      return true;
    } catch {
      return false;
    }
  };
  for (const until = Date.now() + 60_000; !isReady(); await pause(100)) {
    assert.ok(server.exitCode === null && Date.now() < until, "PostgreSQL did not start");
  }
  execFileSync(join(found, "createdb"), [...connection, "xp"], options);
  const version = execFileSync(join(found, "postgres"), ["--version"], { encoding: "utf8" }).trim();
  const close = async () => {
    const ended = once(server, "exit");
    // At once, without a checkpoint: nothing of it is needed again.
    server.kill("SIGQUIT");
    await ended;
  };
  return { url: `postgres://postgres@localhost/xp?host=${folder}`, version, close };
}
