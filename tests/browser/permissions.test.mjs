// What the page shows to accounts that may not have everything, as in production: the schema, published documents, examples. And
// small things of its menus and lists. Refusals are played by the test, since the server under test runs in development.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import {
  accounts,
  answered,
  choose,
  eventually,
  holds,
  isReady,
  isStill,
  launch,
  model,
  note,
  open,
  picture,
  run,
  signIn,
  write,
} from "./page.mjs";

let browser, people;

before(async () => {
  people = await accounts();
  browser = await launch();
});
after(() => browser?.close());

const account = (page) => page.getByRole("combobox", { name: "Account" });

test("published documents are listed again for another account, and an old refusal goes", async () => {
  const page = await open(browser);
  const [admin, other] = people;
  const listed = { id: "a".repeat(64), client: "app", operations: ["Listed"], text: "query Listed { __typename }", requests: 1, lastUsedSeconds: 0 };
  await page.route("**/playground/documents.json", (route, request) =>
    request.headers().authorization === `Bearer ${admin.token}`
      ? route.fulfill({ json: { documents: [listed] } })
      : route.fulfill({ status: 403, json: { errors: [{ message: "Only administrators may list documents." }] } }),
  );
  await account(page).selectOption(other.name);
  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  const refused = part.getByText("Only administrators may list documents.");
  const entry = part.getByRole("button", { name: /Listed/ });
  await refused.waitFor();
  await account(page).selectOption(admin.name);
  await entry.waitFor();
  await refused.waitFor({ state: "detached" });
  await account(page).selectOption(other.name);
  await refused.waitFor();
  await entry.waitFor({ state: "detached" });
  await page.context().close();
});

test("who is not signed in and may not see the schema is told how, and the answer stays empty", async () => {
  const page = await open(browser);
  await account(page).selectOption("");
  await page.route("**/graphql", (route, request) => {
    const isRefused = request.postData()?.includes("IntrospectionQuery") && !request.headers().authorization;
    const errors = [{ message: "This server does not tell its schema.", extensions: { code: "INTROSPECTION_DISABLED" } }];
    return isRefused ? route.fulfill({ status: 200, json: { errors } }) : route.fallback();
  });
  await page.reload();
  await isReady(page);
  await note(page, "Sign in as an administrator to see the schema.").waitFor();
  assert.equal(await model(page, "response.json"), "");
  await picture(page, "schema-refused");
  await signIn(page, people[0]);
  await note(page, "Sign in as an administrator").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Show Documentation Explorer" }).click();
  const documented = page.locator(".graphiql-doc-explorer").getByRole("link", { name: "Query", exact: true });
  await documented.waitFor();
  // The schema is asked for as the account at once, before its header stands in an editor.
  await page.reload();
  await isReady(page);
  await documented.waitFor();
  await page.context().close();
});

test("the map without the text for gateways has no domains and no keys", async () => {
  const page = await open(browser);
  await page.route(/\/schema\.graphql$/, (route) => route.fulfill({ status: 404, body: "" }));
  await page.getByRole("button", { name: "Schema", exact: true }).click();
  const dialog = page.getByRole("dialog", { name: "Schema" });
  await dialog.locator(".xp-box").first().waitFor();
  assert.equal(await dialog.locator(".xp-box-key").count(), 0);
  assert.equal(await dialog.getByRole("list", { name: "Domains" }).count(), 0);
  const missing = dialog.getByRole("button", { name: "Schema for federation" });
  assert.ok(await missing.isDisabled());
  assert.match(await missing.innerText(), /Gateways get this one/);
  assert.equal(await missing.getAttribute("title"), "Gateways get this one");
  assert.ok(await dialog.getByRole("button", { name: "Schema for clients" }).isEnabled());
  await picture(page, "schema-clients");
  await page.context().close();
});

test("what is searched on the map comes into view, and is counted in plain words", async () => {
  for (const viewport of [{ width: 390, height: 844 }, { width: 1000, height: 500 }]) {
    const page = await open(browser, { viewport });
    await page.getByRole("button", { name: "Schema", exact: true }).click();
    const dialog = page.getByRole("dialog", { name: "Schema" });
    await dialog.locator(".xp-box").first().waitFor();
    const map = await dialog.locator(".xp-map").boundingBox();
    for (const [text, counted] of [["heading", "0 types and 1 field."], ["WebhookDelivery", "1 type and 0 fields."]]) {
      await dialog.getByLabel("Search").fill(text);
      const hit = dialog.locator(".xp-name-hit, .xp-field-hit").first();
      await hit.waitFor();
      await eventually(page, async () => {
        const { x, y } = await hit.boundingBox();
        return x >= map.x && y >= map.y && x < map.x + map.width && y < map.y + map.height;
      });
      await dialog.getByText(counted).waitFor();
      const search = await dialog.getByLabel("Search").boundingBox();
      assert.ok(search.y >= 0, "the search stays in view");
    }
    await picture(page, `schema-search-${viewport.width}`);
    await page.context().close();
  }
});

test("an example that cannot be answered is filled in and not run, and why is said until something is run", async () => {
  const page = await open(browser);
  const asked = [];
  page.on("request", (request) => asked.push(request.postData() ?? ""));
  await account(page).selectOption("");
  for (const [title, why] of [
    ["Variable batch", "Filled in, not run. It needs an account: sign in."],
    ["W1: one user", "Filled in, not run. This account sees no users."],
  ]) {
    await choose(page, title);
    await holds(page, "operation.graphql", `# ${title}`);
    await note(page, why).waitFor();
    // Long enough for an operation to be sent.
    await page.waitForTimeout(500);
    assert.ok(!asked.some((text) => text.includes(`# ${title}`)), `${title} was sent`);
    await note(page, why).waitFor();
  }
  const sent = answered(page, "# W1");
  await run(page);
  await sent;
  await note(page, "Filled in, not run").waitFor({ state: "detached" });
  await page.context().close();
});

test("of two operations of one name in a file the later is read, and what a file or a name does is said", async () => {
  const page = await open(browser);
  const folder = mkdtempSync(join(tmpdir(), "xp-operations-"));
  const file = (name, text) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const one = (name, query) => ({ name, query });
  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  const input = part.getByLabel("File to import");
  await input.setInputFiles(file("text.json", "not json"));
  await part.getByText("This is not a file of operations: it is not JSON.").waitFor();
  await input.setInputFiles(file("two.json", JSON.stringify({ operations: [one("A", "{ me { id } }"), one("A ", "query Later { __typename }")] })));
  await part.getByText("1 operation was read.", { exact: true }).waitFor();
  const entry = part.getByRole("button", { name: "A", exact: true });
  assert.equal(await entry.count(), 1);
  await entry.click();
  await holds(page, "operation.graphql", "query Later");
  await write(page, "query Newest { __typename }");
  await part.getByLabel("Name of the operation").fill("A");
  await part.getByRole("button", { name: "Save" }).click();
  await part.getByText("Replaced “A”.").waitFor();
  assert.equal(await entry.count(), 1);
  rmSync(folder, { recursive: true });
  await page.context().close();
});

test("on a phone the menu of examples keeps away from the edge", async () => {
  const page = await open(browser, { viewport: { width: 390, height: 844 }, hasTouch: true });
  await page.getByRole("button", { name: "Examples" }).tap();
  await page.getByRole("menuitem", { name: "W2" }).waitFor();
  await isStill(page);
  const { x, width } = await page.locator(".xp-menu").boundingBox();
  assert.ok(x >= 8 && x + width <= 390 - 8, `from ${x} to ${x + width}`);
  await page.context().close();
});
