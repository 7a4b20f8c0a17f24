// Asks one small question after the other until it is told to stop, and says how long each took. It runs in a thread of its
// own (a worker of pressure.mjs), so that what the attackers cost their own event loop is not measured as waiting.
// Not here: what an attack may cost (pressure.mjs).
import http from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";

const { hostname, port, localAddress, bearer, pause } = workerData;
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const waited = [];
const failures = new Map();
let goesOn = true;
parentPort.once("message", () => (goesOn = false));

/** `[status, milliseconds]`, or `[what failed, 0]`. */
const ask = (isSignedIn) =>
  new Promise((resolve) => {
    const body = JSON.stringify({ query: isSignedIn ? "{ me { id } }" : "{ __typename }" });
    const headers = { "content-type": "application/json", "content-length": body.length, ...(isSignedIn && { authorization: bearer }) };
    const started = performance.now();
    const options = { host: hostname, port, path: "/graphql", method: "POST", localAddress, agent, headers, timeout: 20_000 };
    const request = http.request(options, (response) => {
      response.resume();
      response.on("end", () => resolve([response.statusCode, performance.now() - started]));
      response.on("error", (error) => resolve([error.code, 0]));
    });
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", (error) => resolve([error.code ?? error.message, 0]));
    request.end(body);
  });

for (let number = 0; goesOn; number++) {
  const [status, took] = await ask(number % 2 === 1);
  if (status === 200) waited.push(took);
  else failures.set(status, (failures.get(status) ?? 0) + 1);
  await wait(pause);
}
agent.destroy();
parentPort.postMessage({ waited, failures });
