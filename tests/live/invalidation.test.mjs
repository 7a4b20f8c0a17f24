// What Apollo Router is told to forget after a write, by a router made for the test.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { pause, start } from "./xp.mjs";

const KEY = "the key of the test's router, shared";

let router, port, xp;
const told = [];
let status = () => 202;

async function listen() {
  router = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const code = status();
    if (code === 202) told.push({ authorization: request.headers.authorization, path: request.url, orders: JSON.parse(body) });
    response.writeHead(code).end();
  });
  router.listen(port ?? 0, "127.0.0.1");
  await once(router, "listening");
  port = router.address().port;
}

async function close() {
  router.closeAllConnections();
  router.close();
  await once(router, "close");
}

before(async () => {
  await listen();
  xp = await start({
    XP_GATEWAY_INVALIDATION_URL: `http://127.0.0.1:${port}/invalidation`,
    XP_GATEWAY_INVALIDATION_KEY: KEY,
    XP_GATEWAY_SUBGRAPH: "accounts",
  });
});
after(async () => {
  assert.equal(await xp.stop(), 0);
  await close();
});

const tags = () => told.flatMap(({ orders }) => orders.map((order) => order.cache_tag));

async function until(tag) {
  for (let tries = 0; tries < 400; tries++) {
    if (tags().includes(tag)) return;
    await pause(25);
  }
  assert.fail(`${tag} was not told: ${JSON.stringify(told)}`);
}

test("a write is told with its tags", async () => {
  const { token, user } = await xp.signIn("COLLECTOR");
  await xp.goTo(token, 61.5);
  await until(`Location#user:${user}`);
  const { authorization, path, orders } = told.at(-1);
  assert.deepEqual([authorization, path], [KEY, "/invalidation"]);
  assert.deepEqual(Object.keys(orders[0]).sort(), ["cache_tag", "kind", "subgraphs"]);
  assert.deepEqual([orders[0].kind, orders[0].subgraphs], ["cache_tag", ["accounts"]]);
});

test("a router that fails, or is gone, delays no write, and hears of it later", async () => {
  const { token, user } = await xp.signIn("EDITOR");
  const { token: other, user: otherUser } = await xp.signIn("COLLECTOR");
  told.length = 0;
  status = () => 500;
  await xp.goTo(token, 62.5);
  await pause(200);
  await close();
  const begun = Date.now();
  await xp.goTo(other, 63.5);
  assert.ok(Date.now() - begun < 5_000);
  status = () => 202;
  await listen();
  await until(`Location#user:${user}`);
  await until(`Location#user:${otherUser}`);
});

test("what a router has refused is made up for by the next write", async () => {
  const { token } = await xp.signIn("COLLECTOR");
  await pause(500);
  let refused = 0;
  status = () => (refused++, 401);
  await xp.goTo(token, 64.5);
  for (let tries = 0; tries < 200 && refused === 0; tries++) await pause(25);
  await pause(500);
  told.length = 0;
  status = () => 202;
  await xp.goTo(token, 65.5);
  for (let tries = 0; tries < 200 && told.length === 0; tries++) await pause(25);
  assert.deepEqual(told[0]?.orders, [{ kind: "subgraph", subgraph: "accounts" }]);
  await xp.goTo(token, 66.5);
  for (let tries = 0; tries < 200 && told.length === 1; tries++) await pause(25);
  assert.equal(told[1]?.orders[0].kind, "cache_tag", "and then as ever");
});
