// What a first visit costs, in bytes as they travel: before the page shows its name, before the editor's own file is asked for, and
// in all. The limits are budgets: raise one only for something that is worth it to every visitor.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, launch, url } from "./page.mjs";

/** Until the page is drawn and says that the rest is on its way. */
const DRAWN = 80_000;
/** Until the bar, the tabs and the panels are there, without the editor. */
const WITHOUT_EDITOR = 250_000;
/** With the editor, and the documentation that comes after it. */
const WHOLE = 1_050_000;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

test("the page is drawn before the app and the editor come, each within its budget", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  const paths = new Map();
  const bytes = new Map();
  session.on("Network.requestWillBeSent", ({ requestId, request }) => paths.set(requestId, new URL(request.url).pathname));
  session.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => bytes.set(paths.get(requestId), encodedDataLength));
  // The editor's file is held back until what is there without it has been looked at.
  const gate = () => {
    let release;
    const held = new Promise((done) => (release = done));
    return { release, hold: async (route) => (await held, route.continue()) };
  };
  const [app, editor] = [gate(), gate()];
  await page.route(/\/playground\/start-[^/]*\.js$/, app.hold);
  await page.route(/\/playground\/(monaco-editor|mouseTarget|lite)-[^/]*\.js$/, editor.hold);
  await page.goto(url, { waitUntil: "commit" });
  await page.getByRole("heading", { name: "XP Graph" }).waitFor();
  await page.getByText("Loading the editor").waitFor();
  const files = () => [...bytes].filter(([path]) => path === "/" || path.startsWith("/playground/"));
  const sum = (listed) => listed.reduce((total, [, length]) => total + length, 0);
  const keepsTo = async (budget, least) => {
    // The browser tells that a file has come a moment after it is used.
    await eventually(page, () => files().length >= least);
    const listed = files();
    console.log(`${listed.length} files, ${sum(listed)} bytes`);
    assert.ok(sum(listed) <= budget, `${sum(listed)} bytes: ${JSON.stringify(listed)}`);
  };
  await keepsTo(DRAWN, 3);
  app.release();
  await page.getByRole("combobox", { name: "Account" }).waitFor();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  await keepsTo(WITHOUT_EDITOR, 6);
  assert.ok(!files().some(([path]) => /doc-explorer|\.woff2/.test(path)), "the documentation and the editor's font come later");
  editor.release();
  await page.locator(".graphiql-query-editor .view-lines").waitFor();
  await page.getByRole("button", { name: "Examples" }).and(page.locator(":enabled")).waitFor();
  await eventually(page, () => files().some(([path]) => path.includes("/doc-explorer-")));
  await keepsTo(WHOLE, 12);
  await context.close();
});
