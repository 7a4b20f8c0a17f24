// A real nginx with the shipped configuration, in front of what a test names. Not here: what is asked through it.
import assert from "node:assert/strict";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { freePort, scratch, startProgram } from "../processes.mjs";

const READY_MS = 10_000;

/** Starts nginx in front of these ports, with everything else as it is shipped; gives `{ site, folder, said, stop }`. */
export async function startNginx(ports) {
  const port = await freePort();
  const folder = scratch("nginx");
  await chmod(folder, 0o777); // its workers are another user
  for (const name of ["cache", "temp"]) await mkdir(join(folder, name), { mode: 0o777 });
  const shipped = await readFile(join(import.meta.dirname, "../../deploy/nginx/xp-graph.conf"), "utf8");
  // As many of the shipped servers as there are ports, each with its parameters.
  let used = 0;
  const own = shipped
    .replace(/^ *server 127\.0\.0\.1:\d+(.*;)\n/gm, (_, parameters) =>
      used < ports.length ? `  server 127.0.0.1:${ports[used++]}${parameters}\n` : "")
    .replace("listen 8081;", `listen 127.0.0.1:${port};`)
    .replace("/var/cache/nginx/xp-graph", join(folder, "cache"));
  assert.equal(used, ports.length, "the shipped file has servers enough");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (kind) => `${kind}_temp_path ${join(folder, "temp", kind)};`,
  );
  await writeFile(
    join(folder, "nginx.conf"),
    `daemon off; pid ${folder}/pid; error_log stderr; events {}
     http { access_log off; ${temporary.join(" ")} ${own} }`,
  );
  const site = `http://127.0.0.1:${port}`;
  const isReady = async () => Boolean((await fetch(`${site}/livez`).catch(() => undefined))?.ok);
  const command = ["nginx", "-p", folder, "-c", join(folder, "nginx.conf")];
  const { said, close } = await startProgram("nginx", command, { isReady, within: READY_MS });
  return { site, folder, said, stop: close };
}
