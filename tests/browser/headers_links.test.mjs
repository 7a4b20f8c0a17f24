// What a person writes into the header editor, what copies of it tell, and links that are followed on an open page. Not here: the
// other entries of the answer bar (answer.test.mjs).
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { accounts, copied, holds, launch, open, response, run, write } from "./page.mjs";

let browser, page, people;

before(async () => {
  people = await accounts();
  browser = await launch();
  page = await open(browser, { permissions: ["clipboard-read", "clipboard-write"] });
});
after(() => browser?.close());

/** Writes into the header editor of the tab. */
function setHeaders(headers) {
  return page.evaluate((text) => {
    const models = globalThis.__MONACO.editor.getModels();
    models.find(({ uri }) => uri.path.includes("header")).setValue(text);
  }, JSON.stringify(headers));
}

test("values that are no headers are not sent and break nothing", async () => {
  for (const Authorization of [null, 5, { a: 1 }, ["Bearer x"]]) {
    await write(page, "{ __typename }");
    await setHeaders({ Authorization, "x-number": 7, "x-list": [1] });
    await page.getByRole("combobox", { name: "Account" }).selectOption({ index: 1 });
    await page.getByRole("combobox", { name: "Account" }).selectOption({ index: 0 });
    await page.getByRole("button", { name: "Show Operations" }).waitFor();
    const sent = page.waitForRequest((request) => request.postData()?.includes("__typename") ?? false);
    await setHeaders({ Authorization, "x-number": 7, "x-list": [1] });
    await run(page);
    const headers = (await sent).headers();
    assert.deepEqual([headers["x-number"], headers["x-list"]], ["7", undefined]);
    await page.locator(".xp-facts").getByText("Status").waitFor();
  }
});

test("the token's header may be written in lower case", async () => {
  const admin = people.find(({ role }) => role === "ADMIN");
  await write(page, "query Lower { users(first: 1) { nodes { id } } me { role } }");
  await setHeaders({ authorization: `Bearer ${admin.token}` });
  await page.getByRole("switch", { name: "Explain" }).click();
  await run(page);
  assert.equal((await response(page)).data.me.role, "ADMIN");
  const panel = page.getByRole("region", { name: "Explain", exact: true });
  await panel.getByRole("button", { name: "user.page" }).first().click();
  await panel.locator(".xp-plan").getByText(/SCAN|SEARCH|Scan/).waitFor();
  await page.getByRole("switch", { name: "Explain" }).click();
});

test("a copy tells no cookie and no key unless it is asked to", async () => {
  await write(page, "{ __typename }");
  await setHeaders({ Authorization: "Bearer of-mine", cookie: "session=of-mine", "x-api-key": "of-mine", "x-cache-token": "told" });
  const masked = await copied(page, "cURL, without the token");
  assert.doesNotMatch(masked, /of-mine/);
  assert.match(masked, /"cookie: \$COOKIE"/);
  assert.match(masked, /'x-cache-token: told'/);
  const code = await copied(page, "JavaScript (fetch)");
  assert.doesNotMatch(code, /of-mine/);
  assert.match(code, /"x-api-key": `\$\{x_api_key\}`/);
  assert.match(await copied(page, "cURL, with the token"), /session=of-mine/);
});

test("a copied command of a live query is told its answers", async () => {
  const admin = people.find(({ role }) => role === "ADMIN");
  await write(page, "query Copied @live { me { role } }");
  await setHeaders({ Authorization: `Bearer ${admin.token}` });
  const command = await copied(page, "cURL, with the token");
  const told = await new Promise((done, fail) => {
    const child = execFile("sh", ["-c", `exec ${command}`], { timeout: 60_000 });
    let text = "";
    child.stdout.on("data", (part) => {
      text += part;
      if (text.includes('"role":"ADMIN"')) child.kill();
    });
    child.on("close", () => done(text));
    child.on("error", fail);
  });
  assert.match(told, /event: next/);
  assert.match(await copied(page, "JavaScript (fetch)"), /text\/event-stream[\s\S]*response\.body/);
});

test("a link that is followed on an open page opens its operation", async () => {
  const followed = "query Followed { __typename }";
  await page.evaluate((hash) => {
    window.location.hash = hash;
  }, new URLSearchParams({ query: followed }).toString());
  await holds(page, "operation.graphql", followed);
  assert.equal(new URL(page.url()).hash, "");
});
