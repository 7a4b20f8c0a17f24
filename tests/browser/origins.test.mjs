// A page of another origin as a real browser has it: what of a development server (XP_URL) it may ask, send, read and
// connect to, and what not. The page is served here; its origin is another host and port. Not here: the rules one by one
// (the server's own tests), the playground.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const url = process.env.XP_URL;
assert.ok(url, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8000");
const graph = new URL("/graphql", url).href;

let browser, page, pages;

before(async () => {
  pages = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><title>a page</title>"));
  pages.listen(0, "127.0.0.1");
  await once(pages, "listening");
  browser = await chromium.launch({
    executablePath: process.env.XP_CHROMIUM ?? "/usr/bin/chromium",
    // A name that is no name of this machine, to a browser; it leads here all the same.
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--host-resolver-rules=MAP foreign.example 127.0.0.1"],
  });
  page = await browser.newPage();
  await page.goto(`http://localhost:${pages.address().port}/`);
});

after(async () => {
  await browser?.close();
  pages?.close();
  pages?.closeAllConnections();
});

/** What a page's `fetch` says: status, some headers, body; or that the browser gave the page nothing. */
const ask = (asking, path, options) =>
  asking.evaluate(
    async ([address, given]) => {
      try {
        const response = await fetch(address, given);
        const named = (name) => response.headers.get(name);
        return { status: response.status, id: named("x-request-id"), etag: named("etag"), body: await response.text() };
      } catch {
        return "nothing";
      }
    },
    [new URL(path, url).href, options],
  );

const people = "{ users(first: 1) { totalCount } }";

test("a page of this machine asks by POST, with the headers of monitoring tools, and reads what it needs", async () => {
  const headers = { "content-type": "application/json", baggage: "a=b", "sentry-trace": "1", "x-own": "1", "graphql-client-name": "web" };
  const { status, id, body } = await ask(page, "/graphql", { method: "POST", headers, body: JSON.stringify({ query: people }) });
  assert.deepEqual([status, JSON.parse(body).data], [200, { users: { totalCount: 0 } }]);
  assert.match(id, /^[0-9a-f-]{36}$/);
});

test("it asks by GET without any header of its own, and is told when it is refused", async () => {
  const asked = await ask(page, `/graphql?query=${encodeURIComponent("{ __schema { queryType { name } } }")}`, {});
  assert.equal(asked.status, 200);
  assert.match(asked.etag, /^"/);
  const expired = await ask(page, "/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer x" },
    body: JSON.stringify({ query: "{ me { id } }" }),
  });
  assert.equal(expired.status, 401, "a page can tell what is wrong");
});

/** How a WebSocket of a page goes: its first answer, or that it does not open. */
const connect = (asking) =>
  asking.evaluate(
    (address) =>
      new Promise((done) => {
        const socket = new WebSocket(address, "graphql-transport-ws");
        socket.onopen = () => socket.send('{"type":"connection_init"}');
        socket.onmessage = ({ data }) => done(JSON.parse(data).type);
        socket.onerror = () => done("refused");
      }),
    graph.replace(/^http/, "ws"),
  );

test("it connects by WebSocket", async () => {
  assert.equal(await connect(page), "connection_ack");
});

test("it gets no token of a demo account and no figures", async () => {
  for (const path of ["/playground/config.json", "/metrics"]) assert.equal(await ask(page, path, {}), "nothing", path);
});

test("a page of another machine gets nothing, by POST, GET, or WebSocket", async () => {
  const foreign = await browser.newPage();
  await foreign.goto(`http://foreign.example:${pages.address().port}/`);
  const headers = { "content-type": "application/json" };
  assert.equal(await ask(foreign, "/graphql", { method: "POST", headers, body: JSON.stringify({ query: people }) }), "nothing");
  assert.equal(await ask(foreign, `/graphql?query=${encodeURIComponent(people)}`, {}), "nothing");
  assert.equal(await connect(foreign), "refused");
  await foreign.close();
});
