// Two accounts in one browser: its cache of HTTP answers, which is a real Chromium's, never gives the one what was for the
// other, and still spares each the answers that they have. XP_URL is the server, XP_CHROMIUM names another browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const url = process.env.XP_URL;
assert.ok(url, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8000");

let browser;
let page;
let tokens;
let version;

before(async () => {
  const { accounts } = await (await fetch(new URL("/playground/config.json", url))).json();
  tokens = Object.fromEntries(accounts.map(({ role, token }) => [role, token]));
  version = await oldVersion();
  browser = await chromium.launch({
    executablePath: process.env.XP_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
  page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(90_000);
  // A page of the same origin that sends nothing by itself.
  await page.goto(new URL("/livez", url).href);
});
after(() => browser?.close());

async function write(query, variables) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${tokens.ADMIN}` };
  const response = await fetch(new URL("/graphql", url), { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  assert.equal(errors, undefined, JSON.stringify(errors));
  const [payload] = Object.values(data);
  assert.deepEqual(payload.userErrors, []);
  return payload.form;
}

/** A version that is not the current one any more: only editors see it. */
async function oldVersion() {
  const definition = (label) => ({ schema: 1, fields: [{ key: "a", type: "TEXT", label }] });
  const fields = "form { id draftRevision currentVersion { id } } userErrors { message }";
  const publish = `mutation($id: ID!, $baseRevision: Int!) { publishForm(input: { id: $id, baseRevision: $baseRevision }) { ${fields} } }`;
  const create = `mutation($definition: JSON!) { createForm(input: { title: "Versions", definition: $definition }) { ${fields} } }`;
  const created = await write(create, { definition: definition("SECRET OF THE OLD VERSION") });
  const first = await write(publish, { id: created.id, baseRevision: created.draftRevision });
  const save = `mutation($input: SaveFormDraftInput!) { saveFormDraft(input: $input) { ${fields} } }`;
  const saved = await write(save, { input: { id: created.id, definition: definition("New"), baseRevision: first.draftRevision } });
  await write(publish, { id: created.id, baseRevision: saved.draftRevision });
  return first.currentVersion.id;
}

/** Asks from within the page, as an account or as nobody; what came, and whether it came from the browser's cache. */
async function ask(role) {
  const path = `/graphql?${new URLSearchParams({ query: `{ formVersion(id: "${version}") { definition } }` })}`;
  const headers = { "apollo-require-preflight": "1", ...(role && { authorization: `Bearer ${tokens[role]}` }) };
  return page.evaluate(
    async ([path, headers]) => {
      performance.clearResourceTimings();
      const response = await fetch(path, { headers });
      const text = await response.text();
      const { transferSize } = performance.getEntriesByType("resource").at(-1);
      return { text, control: response.headers.get("cache-control"), vary: response.headers.get("vary"), isFromCache: transferSize === 0 };
    },
    [path, headers],
  );
}

test("who may not see an answer does not get it from the cache of the browser", async () => {
  const first = await ask("ADMIN");
  assert.match(first.text, /SECRET OF THE OLD VERSION/);
  assert.deepEqual([first.control, first.isFromCache], ["max-age=300, private", false]);
  assert.match(first.vary, /authorization/);
  const again = await ask("ADMIN");
  assert.deepEqual([again.isFromCache, again.text], [true, first.text], "it is kept for whoever asked");
  for (const role of ["VIEWER", undefined]) {
    const { text, isFromCache } = await ask(role);
    assert.deepEqual([JSON.parse(text).data, isFromCache], [{ formVersion: null }, false], role);
  }
});

test("what was not there before signing in does not stick", async () => {
  assert.deepEqual(JSON.parse((await ask(undefined)).text).data, { formVersion: null });
  assert.match((await ask("ADMIN")).text, /SECRET OF THE OLD VERSION/);
});
