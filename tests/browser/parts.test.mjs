// Parts of GraphiQL that the page has in a form of its own, so that less comes before the editor: the documentation, which is
// a file that comes later, and the tabs, which can be dragged without an animation library. Not here: how many bytes that is.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { holds, isReady, launch, open, url, write } from "./page.mjs";

let browser, page;

before(async () => {
  browser = await launch();
  page = await open(browser);
});
after(() => browser?.close());

const search = () => page.locator(".graphiql-doc-explorer-search-input");

test("the shortcut leads into the search of the documentation, and a field found there is described", async () => {
  await page.waitForFunction(() => performance.getEntriesByType("resource").some(({ name }) => name.includes("/doc-explorer-")));
  await page.keyboard.press("Control+Alt+K");
  await search().getByRole("combobox").and(page.locator(":focus")).waitFor();
  await page.keyboard.type("lastLocation");
  await page.getByRole("option", { name: "User.lastLocation" }).click();
  await page.locator(".graphiql-doc-explorer-title").getByText("lastLocation").waitFor();
  const description = page.locator(".graphiql-doc-explorer-content .graphiql-markdown-description").first();
  assert.ok((await description.innerText()).length > 10);
  await page.getByRole("button", { name: "Hide Documentation Explorer" }).click();
});

test("the shortcut leads there too while the documentation is still on its way", async () => {
  const context = await browser.newContext();
  const slow = await context.newPage();
  let release;
  const held = new Promise((done) => (release = done));
  await slow.route(/\/playground\/doc-explorer-/, async (route) => (await held, route.continue()));
  await slow.goto(url);
  await isReady(slow);
  await slow.keyboard.press("Control+Alt+K");
  await slow.getByText("Loading the documentation").waitFor();
  release();
  await slow.locator(".graphiql-doc-explorer-search-input").getByRole("combobox").and(slow.locator(":focus")).waitFor();
  await context.close();
});

test("documentation that was open is open after a reload", async () => {
  await page.getByRole("button", { name: "Show Documentation Explorer" }).click();
  await page.locator(".graphiql-doc-explorer").waitFor();
  await page.reload();
  await isReady(page);
  await page.locator(".graphiql-doc-explorer").getByRole("link", { name: "Query", exact: true }).waitFor();
  await page.getByRole("button", { name: "Hide Documentation Explorer" }).click();
});

test("where the documentation cannot be had, the page says so and the rest works", async () => {
  const context = await browser.newContext();
  const cut = await context.newPage();
  await cut.route(/\/playground\/doc-explorer-/, (route) => route.abort());
  await cut.goto(url);
  await isReady(cut);
  await cut.getByRole("button", { name: "Show Documentation Explorer" }).click();
  await cut.getByText("The documentation cannot be loaded.").waitFor();
  await write(cut, "{ __typename }");
  await context.close();
});

test("tabs are put in another order by dragging, and each keeps its text", async () => {
  const names = (last) =>
    page.waitForFunction(
      (wanted) => [...document.querySelectorAll(".graphiql-tab-button")].map((tab) => tab.innerText).join(" ").endsWith(wanted),
      last.join(" "),
    );
  for (const name of ["One", "Two", "Three"]) {
    await write(page, `query ${name} { __typename }`);
    // The name of an operation comes a moment after its text.
    await names([name]);
  }
  await names(["One", "Two", "Three"]);
  const three = await page.locator(".graphiql-tab").last().boundingBox();
  const one = await page.locator(".graphiql-tab").nth(-3).boundingBox();
  await page.mouse.move(three.x + three.width / 2, three.y + three.height / 2);
  await page.mouse.down();
  await page.mouse.move(one.x + 4, one.y + one.height / 2, { steps: 12 });
  await page.mouse.up();
  await names(["Three", "One", "Two"]);
  for (const name of ["One", "Two", "Three"]) {
    await page.locator(".graphiql-tab-button").getByText(name, { exact: true }).click();
    await holds(page, "operation.graphql", `query ${name} `);
  }
  await page.waitForFunction(() => /Three.*One.*Two/s.test(window.localStorage.getItem("graphiql:tabState") ?? ""));
  await page.reload();
  await isReady(page);
  await names(["Three", "One", "Two"]);
});

test("a press on a tab that moves a little is a click", async () => {
  const before = await page.locator(".graphiql-tab-button").allInnerTexts();
  const { x, y, width, height } = await page.locator(".graphiql-tab").nth(1).boundingBox();
  await page.mouse.move(x + width / 2, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x + width / 2 + 3, y + height / 2);
  await page.mouse.up();
  await page.locator(".graphiql-tab").nth(1).and(page.locator("[aria-selected=true]")).waitFor();
  assert.deepEqual(await page.locator(".graphiql-tab-button").allInnerTexts(), before);
});

test("the console stayed silent", () => assert.deepEqual(page.complaints, []));
