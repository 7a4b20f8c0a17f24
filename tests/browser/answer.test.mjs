// What stands under an answer, and what is kept beside it, in a real browser: the bar of facts, copies and links, operations
// with names, published documents, the log of events, the map of the schema, the account after a reload. Not here: the
// explain panel.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  accounts,
  choose,
  copied,
  eventually,
  fact,
  fillIn,
  findings,
  holds,
  isReady,
  launch,
  model,
  open,
  picture,
  post,
  repeatUntil,
  responded,
  run,
  runExample,
  url,
  write,
} from "./page.mjs";

const PERMISSIONS = ["clipboard-read", "clipboard-write"];
let browser, page, people;

before(async () => {
  people = await accounts();
  browser = await launch();
  page = await open(browser, { permissions: PERMISSIONS });
});
after(() => browser?.close());

/** What the server lists as published. */
async function published() {
  return (await (await fetch(new URL("/playground/documents.json", url))).json()).documents;
}

test("the bar says how the answer came", async () => {
  const arrived = responded(page, "query W2");
  await choose(page, "W2");
  const answer = await arrived;
  const bytes = (await answer.body()).length;
  await page.locator(".xp-facts").getByText("Status").waitFor();
  assert.equal(await fact(page, "Status"), "200");
  assert.match(await fact(page, "Time"), /^[\d.]+ ms$/);
  assert.equal(await fact(page, "Size"), `${(bytes / 1024).toFixed(1)} KB`);
  assert.equal(await fact(page, "Cache"), answer.headers()["cache-control"]);
  const [, cost, limit] = /^(\d+); limit=(\d+)$/.exec(answer.headers()["graphql-cost"]);
  assert.equal(await fact(page, "Cost"), `${cost} of ${limit}`);
  assert.ok(Number(cost) > 50, "50 people with what they have");
  await write(page, "{ users(first: 1) { nodes { id nothing } } }");
  await run(page);
  await page.locator(".xp-tone-bad").getByText("400").waitFor();
});

test("a copied command asks the same, without the token or with it", async () => {
  await runExample(page, "A first query");
  const masked = await copied(page, "cURL, without the token");
  assert.doesNotMatch(masked, /eyJ/);
  assert.match(masked, /"Authorization: Bearer \$TOKEN"/);
  for (const [command, env] of [
    [masked, { ...process.env, TOKEN: people[0].token }],
    [await copied(page, "cURL, with the token"), process.env],
  ]) {
    const { data } = JSON.parse(execFileSync("sh", ["-c", command], { env, encoding: "utf8" }));
    assert.equal(data.me.role, people[0].role);
  }
});

test("copied code asks the same, and quotes survive", async () => {
  await write(page, 'query Quotes($text: String = "it\'s `a` ${b} \\\\ c") { users(first: 1, filter: { search: $text }) { totalCount } }');
  const code = await copied(page, "JavaScript (fetch)");
  assert.doesNotMatch(code, /eyJ/);
  const ask = new Function("token", `return (async () => { ${code}; return { data, errors, query }; })()`);
  const { query } = await ask(people[0].token);
  assert.equal(query, await model(page, "operation.graphql"));
});

test("what is said of a copy is said anew of the next, for who hears it", async () => {
  await page.evaluate(() => {
    globalThis.said = [];
    const note = document.querySelector(".xp-copied");
    new MutationObserver(() => globalThis.said.push(note.textContent)).observe(note, {
      childList: true,
      characterData: true,
      subtree: true,
    });
  });
  await copied(page, "JavaScript (fetch)");
  await copied(page, "cURL, without the token");
  const said = (await page.evaluate(() => globalThis.said)).join("|");
  assert.match(said, /^\|?Copied\|\|Copied$/);
});

test("the id of the document is the one that it is published under", async () => {
  const text = await model(page, "operation.graphql");
  assert.equal(await copied(page, "Id of the document"), `sha256:${createHash("sha256").update(text).digest("hex")}`);
});

test("a link opens the operation and its variables elsewhere, runs nothing, and has no token", async () => {
  await fillIn(page, "W2");
  const link = await copied(page, "Link to this operation");
  assert.doesNotMatch(link, /eyJ|Bearer|uthorization/);
  assert.equal(new URL(link).search, "");
  const other = await open(browser, {}, new URL(link).pathname + new URL(link).hash);
  const asked = [];
  other.on("request", (request) => request.postData()?.includes("query W2") && asked.push(request.url()));
  await holds(other, "operation.graphql", "# W2");
  assert.deepEqual(JSON.parse(await model(other, "variables.json")), JSON.parse(await model(page, "variables.json")));
  assert.equal(new URL(other.url()).hash, "");
  await other.waitForTimeout(500);
  assert.deepEqual(asked, []);
  await other.context().close();
});

test("operations are kept under names, survive a reload, and travel as a file without tokens", async () => {
  await write(page, "query Mine { me { id } }");
  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  await part.getByLabel("Name of the operation").fill("Who am I");
  await part.getByRole("button", { name: "Save" }).click();
  await part.getByRole("button", { name: "Who am I", exact: true }).waitFor();
  await picture(page, "operations-desktop");
  const [file] = await Promise.all([page.waitForEvent("download"), part.getByRole("button", { name: "Export" }).click()]);
  const text = readFileSync(await file.path(), "utf8");
  assert.deepEqual(JSON.parse(text).operations.map(({ name, query }) => [name, query]), [["Who am I", "query Mine { me { id } }"]]);
  assert.doesNotMatch(text, /eyJ/);
  await page.reload();
  await isReady(page);
  await part.getByRole("button", { name: "Remove Who am I" }).click();
  await part.getByRole("button", { name: "Who am I", exact: true }).waitFor({ state: "detached" });
  const folder = mkdtempSync(join(tmpdir(), "xp-operations-"));
  writeFileSync(join(folder, "a.json"), text);
  writeFileSync(join(folder, "wrong.json"), '{"operations": [{"name": 1}]}');
  await part.getByLabel("File to import").setInputFiles(join(folder, "wrong.json"));
  await part.getByText("This is not a file of operations").waitFor();
  await part.getByLabel("File to import").setInputFiles(join(folder, "a.json"));
  await write(page, "{ __typename }");
  await part.getByRole("button", { name: "Who am I", exact: true }).click();
  await holds(page, "operation.graphql", "query Mine");
  assert.deepEqual(await findings(page), []);
  await page.getByRole("button", { name: "Hide Operations" }).click();
});

test("published documents are listed with their client and how often they were asked for; a click opens one", async () => {
  const folder = process.env.XP_DOCUMENTS;
  assert.ok(folder, "XP_DOCUMENTS is not set: the folder that the server reads its published documents from");
  const name = `Published${Date.now()}`;
  const body = `query ${name} { me { id role } }`;
  const id = createHash("sha256").update(body).digest("hex");
  const file = join(folder, "browser.json");
  const operations = [{ id, name, type: "query", body, clientName: "field-app" }];
  writeFileSync(file, JSON.stringify({ format: "apollo-persisted-query-manifest", version: 1, operations }));
  const part = page.getByRole("region", { name: "Operations" });
  try {
    await eventually(page, async () => (await published()).some((one) => one.id === id));
    for (let times = 0; times < 3; times += 1) {
      const authorization = `Bearer ${people[0].token}`;
      const headers = { "content-type": "application/json", "graphql-client-name": "field-app", authorization };
      const response = await fetch(new URL("/graphql", url), { method: "POST", headers, body: JSON.stringify({ documentId: id }) });
      assert.equal((await response.json()).data.me.role, people[0].role);
    }
    await page.getByRole("button", { name: "Show Operations" }).click();
    const entry = part.getByRole("button", { name: new RegExp(name) });
    await entry.waitFor();
    assert.match(await entry.innerText(), /field-app · 3 requests, last .*\d/);
    assert.equal(await entry.getAttribute("title"), id);
    await picture(page, "published-desktop");
    assert.deepEqual(await findings(page), []);
    await entry.click();
    await holds(page, "operation.graphql", body);
  } finally {
    rmSync(file);
  }
  await eventually(page, async () => !(await published()).some((one) => one.id === id));
  await page.getByRole("button", { name: "Hide Operations" }).click();
  const listed = page.waitForResponse((answer) => answer.url().endsWith("/playground/documents.json"));
  await page.getByRole("button", { name: "Show Operations" }).click();
  await listed;
  await page.waitForTimeout(200);
  assert.equal(await part.getByText(name).count(), 0, "what is gone is not listed");
  await page.getByRole("button", { name: "Hide Operations" }).click();
});

test("where nobody may list the published documents, the page says why", async () => {
  const forbidden = { errors: [{ message: "Only administrators may list documents." }] };
  await page.route("**/playground/documents.json", (route) => route.fulfill({ status: 403, json: forbidden }));
  await page.getByRole("button", { name: "Show Operations" }).click();
  await page.getByRole("region", { name: "Operations" }).getByText("Only administrators may list documents.").waitFor();
  await page.unroute("**/playground/documents.json");
  await page.getByRole("button", { name: "Hide Operations" }).click();
});

test("the log has each event with its time, can be held, and says when the connection is lost", async () => {
  await choose(page, "Live: positions");
  await page.getByRole("status").getByText("Press the run button to listen").waitFor();
  await run(page);
  const log = page.getByRole("region", { name: "Events" });
  await log.getByText("Listening").waitFor();
  // An account that no other file records positions of: an older one than its last is no event.
  const { token } = people.find(({ role }) => role === "MANAGER");
  let latitude = 10;
  const record = async () => {
    latitude += 1;
    const point = { timestamp: new Date(Date.now() + 60_000 + latitude * 1000).toISOString(), latitude, longitude: 8 };
    const query = "mutation($point: LocationPointInput!) { recordLocations(input: { points: [$point] }) { acceptedCount } }";
    assert.equal((await post(query, { point }, token)).data.recordLocations.acceptedCount, 1);
  };
  const event = (number) => log.locator("summary").getByText(`#${number}`, { exact: true });
  await repeatUntil(page, event(1), record);
  await repeatUntil(page, event(2), record);
  // The last one that was recorded has come: none is on its way.
  await holds(page, "response.json", `"latitude": ${latitude},`);
  const count = await log.getByRole("listitem").count();
  assert.match(await log.locator("time").first().innerText(), /^\d\d:\d\d:\d\d\.\d{3}$/);
  await log.locator("summary").first().click();
  assert.match(await log.locator("mark").first().innerText(), /\d/, "what changed is marked");
  await log.getByText(/^Resume token: [0-9a-f]+(-[0-9a-f]+){3}$/).waitFor();
  await picture(page, "events-desktop");
  await log.getByRole("button", { name: "Pause" }).click();
  await record();
  await log.getByText("1 waiting").waitFor();
  assert.equal(await event(count + 1).count(), 0);
  await log.getByRole("button", { name: "Pause" }).click();
  await event(count + 1).waitFor();
  assert.deepEqual(await findings(page), []);
  await run(page);
  await log.getByText("Ended").waitFor();
});

test("the map of the schema has each type with its key, can be searched, and its texts can be had", async () => {
  await page.getByRole("button", { name: "Schema", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Schema" });
  await dialog.locator(".xp-box").first().waitFor();
  const sdl = await (await fetch(new URL("/schema.graphql", url))).text();
  const entities = [...sdl.matchAll(/^type (\w+) implements Node @key/gm)].map(([, name]) => name);
  assert.ok(entities.length >= 5);
  assert.deepEqual((await dialog.locator(".xp-box-name").allTextContents()).sort(), entities.sort());
  assert.ok((await dialog.locator(".xp-box-key").allTextContents()).includes("key: id, email"), "User has two keys");
  await picture(page, "schema-desktop");
  await dialog.getByLabel("Search").fill("lastLocation");
  await dialog.getByText("0 types and 2 fields").waitFor();
  assert.equal(await dialog.locator(".xp-field-hit").count(), 2);
  for (const [title, path] of [["Schema for clients", "/schema.graphql?api"], ["Schema for federation", "/schema.graphql"]]) {
    const [file] = await Promise.all([page.waitForEvent("download"), dialog.getByRole("button", { name: title }).click()]);
    assert.equal(readFileSync(await file.path(), "utf8"), await (await fetch(new URL(path, url))).text());
  }
  assert.deepEqual(await findings(page), []);
  await dialog.getByRole("button", { name: "Close" }).click();
});

test("deprecated fields are marked on the map", async () => {
  const other = await open(browser);
  await other.route("**/schema.graphql", (route) =>
    route.fulfill({
      body: `directive @key(fields: String!) repeatable on OBJECT
        interface Node { id: ID! }
        type A implements Node @key(fields: "id") { id: ID! old: String @deprecated(reason: "Use id.") }`,
    }),
  );
  await other.getByRole("button", { name: "Schema", exact: true }).click();
  await other.locator(".xp-deprecated").getByText("old").waitFor();
  assert.match(await other.locator(".xp-field title").last().textContent(), /Deprecated: Use id\./);
  await other.context().close();
});

test("after a reload the account that signed in is still there, and a second tab has no part in it", async () => {
  const person = people.find(({ role }) => role === "EDITOR") ?? people[1];
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  const form = page.getByRole("dialog", { name: "Sign in" });
  await form.getByLabel("E-mail").fill(person.name);
  await form.getByLabel("Password").fill(person.password);
  await form.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("dialog", { name: "Sessions" }).getByRole("button", { name: "Close" }).click();
  const kept = () => page.evaluate(() => [window.sessionStorage.getItem("xp:session"), JSON.stringify(window.localStorage)]);
  assert.equal((await kept())[0], null, "nothing lies there while the page is open");
  for (let round = 0; round < 2; round++) {
    await page.reload();
    await isReady(page);
    const chosen = page.getByRole("combobox", { name: "Account" });
    assert.match(await chosen.evaluate((select) => select.selectedOptions[0].text), /signed in/);
    assert.equal((await kept())[0], null);
    assert.equal((await runExample(page, "A first query")).data.me.role, person.role);
  }
  const other = await page.context().newPage();
  await other.goto(url);
  await isReady(other);
  await other.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  await other.close();
  await page.getByRole("button", { name: "Sessions", exact: true }).click();
  await page.getByRole("dialog", { name: "Sessions" }).getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("dialog", { name: "Sign in" }).getByRole("button", { name: "Close" }).click();
  await page.reload();
  await isReady(page);
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
});

test("who is told the schema only after signing in gets it then", async () => {
  const other = await open(browser);
  const tokens = people.map(({ token }) => `Bearer ${token}`);
  await other.route("**/graphql", (route, request) => {
    const { authorization } = request.headers();
    const isRefused = request.postData()?.includes("IntrospectionQuery") && (!authorization || tokens.includes(authorization));
    const refused = { status: 400, json: { errors: [{ message: "This server does not tell its schema." }] } };
    return isRefused ? route.fulfill(refused) : route.continue();
  });
  await other.reload();
  await isReady(other);
  await other.getByRole("button", { name: "Show Documentation Explorer" }).click();
  await other.getByText("Error fetching schema").waitFor();
  const [admin] = people;
  await other.getByRole("button", { name: "Sign in", exact: true }).click();
  const form = other.getByRole("dialog", { name: "Sign in" });
  await form.getByLabel("E-mail").fill(admin.name);
  await form.getByLabel("Password").fill(admin.password);
  await form.getByRole("button", { name: "Sign in" }).click();
  await other.getByRole("dialog", { name: "Sessions" }).getByRole("button", { name: "Close" }).click();
  await other.locator(".graphiql-doc-explorer").getByRole("link", { name: "Query", exact: true }).waitFor();
  await other.context().close();
});

test("enlarged to twice its size the page needs no scrolling sideways, and nothing moves for who wants none", async () => {
  const other = await open(browser, { viewport: { width: 680, height: 425 }, reducedMotion: "reduce" });
  assert.ok((await other.evaluate(() => document.documentElement.scrollWidth)) <= 680);
  const moving = await other.evaluate(() =>
    [...document.querySelectorAll("*")].filter((one) => {
      const { transitionDuration, animationDuration } = getComputedStyle(one);
      return [transitionDuration, animationDuration].some((text) => text.split(",").some((part) => parseFloat(part) > 0.001));
    }).length,
  );
  assert.equal(moving, 0);
  await other.context().close();
});

test("the console stayed silent", () => {
  const unexpected = page.complaints.filter((text) => !/status of (400|403)/.test(text));
  assert.deepEqual(unexpected, []);
});
