// Two servers over one database with a Redis between them, and a balancer before both that takes them in turn and keeps the
// headers of what it was asked: XP_BINARY is the program. Not here: gateways.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, request as ask } from "node:http";
import { join } from "node:path";
import { freePort, scratch } from "../processes.mjs";
import { startServer } from "./split.mjs";

/**
 * @param {Record<string, string>} [settings] of both servers, as environment variables
 * @returns {Promise<{url: string, servers: string[], asked: {server: string, headers: object}[], close: () => Promise<void>}>}
 *   the address of `/graphql` of the balancer, those of the servers, and what came of late
 */
export async function startInstances(settings = {}) {
  const home = scratch("instances");
  const running = [];
  const port = await freePort();
  const options = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--loglevel", "warning"];
  const redis = spawn("redis-server", options, { cwd: home, stdio: "ignore" });
  running.push({ server: redis, ended: once(redis, "exit") });
  const environment = {
    DATABASE_URL: `sqlite:${join(home, "instances.db")}`,
    REDIS_URL: `redis://127.0.0.1:${port}`,
    ...settings,
  };
  // The first makes the database and the keys.
  const servers = [await startServer(home, [], running, environment), await startServer(home, [], running, environment)];
  const asked = [];
  let turn = 0;
  const balancer = createServer((incoming, response) => {
    const server = servers[turn++ % servers.length];
    asked.push({ server, headers: incoming.headers });
    const { host, ...headers } = incoming.headers;
    const forwarded = ask(new URL(incoming.url, server), { method: incoming.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    forwarded.on("error", () => response.destroy());
    incoming.pipe(forwarded);
  });
  balancer.listen(0, "127.0.0.1");
  await once(balancer, "listening");
  const close = async () => {
    balancer.close();
    balancer.closeAllConnections();
    for (const { server } of running) server.kill();
    await Promise.all(running.map(({ ended }) => ended));
  };
  return { url: `http://127.0.0.1:${balancer.address().port}/graphql`, servers, asked, close };
}
