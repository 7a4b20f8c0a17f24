// What the page does where the server is not reached for a while, where a person reloads it quickly, and where the browser stores
// nothing or has no room: who has signed in stays so, and the page works. Not here: what the server refuses to an account.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  accounts,
  choose,
  eventually,
  isChosen,
  isReady,
  launch,
  note,
  open,
  response,
  run,
  runExample,
  signIn,
  url,
} from "./page.mjs";

let browser, person;

before(async () => {
  person = (await accounts()).find(({ role }) => role === "EDITOR");
  browser = await launch();
});
after(() => browser?.close());

const kept = (page) => page.evaluate(() => window.sessionStorage.getItem("xp:session"));
const isExchange = (request) => Boolean(request.postData()?.includes("PlaygroundRefresh"));

/** Lets exchanges of tokens have no answer, as where there is no network; what it returns ends that, and `count` tells how many. */
async function cutOff(page, isMeant = isExchange) {
  const cut = { count: 0 };
  const handler = (route, request) => {
    if (!isMeant(request)) return route.fallback();
    cut.count += 1;
    return route.abort();
  };
  await page.route("**/graphql", handler);
  cut.end = () => page.unroute("**/graphql", handler);
  return cut;
}

async function asks(page) {
  return (await runExample(page, "A first query")).data.me?.role;
}

test("a page that is reloaded again before its tokens are there keeps the account", async () => {
  const page = await open(browser);
  await signIn(page, person);
  let isAsked;
  const asked = new Promise((done) => (isAsked = done));
  // The first exchange reaches the server, and its answer never comes back.
  await page.route("**/graphql", async (route, request) => {
    if (!isExchange(request)) return route.fallback();
    await route.fetch();
    isAsked();
  });
  await page.reload({ waitUntil: "commit" });
  await asked;
  await page.unroute("**/graphql");
  await page.reload();
  await isReady(page);
  await isChosen(page, `${person.name} (signed in)`);
  assert.equal(await asks(page), person.role);
  assert.equal(await kept(page), null, "nothing lies there once the next tokens are there");
  await page.context().close();
});

test("where the server is not reached at a reload, the account stays, and gets its tokens later", async () => {
  const page = await open(browser);
  await signIn(page, person);
  const cut = await cutOff(page);
  await page.reload();
  await isReady(page);
  await isChosen(page, `${person.name} (signed in)`);
  await note(page, "The server is not reached. You stay signed in").waitFor();
  // Without its token it is not answered as nobody.
  await run(page);
  assert.match((await response(page)).errors[0].message, /not reached/);
  await eventually(page, () => cut.count >= 3);
  await page.reload();
  await isReady(page);
  await isChosen(page, `${person.name} (signed in)`);
  await cut.end();
  await note(page, "The server is not reached").waitFor({ state: "detached" });
  await isChosen(page, `${person.name} (signed in)`);
  assert.equal(await asks(page), person.role);
  assert.equal(await kept(page), null);
  await page.context().close();
});

test("where the server is not reached when tokens are renewed, the account stays, and another that was chosen too", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(90_000);
  await page.clock.install();
  await page.goto(url);
  await isReady(page);
  await signIn(page, person);
  const cut = await cutOff(page);
  await page.clock.runFor(20 * 60_000);
  await note(page, "The server is not reached").waitFor();
  await isChosen(page, `${person.name} (signed in)`);
  // The pauses grow up to half a minute.
  const before = cut.count;
  await eventually(page, async () => {
    await page.clock.runFor(30_000);
    return cut.count > before;
  });
  const [admin] = await accounts();
  await page.getByRole("combobox", { name: "Account" }).selectOption(admin.name);
  await cut.end();
  const isGone = note(page, "The server is not reached");
  await eventually(page, async () => {
    await page.clock.runFor(31_000);
    return (await isGone.count()) === 0;
  });
  await isChosen(page, admin.name);
  await page.getByRole("combobox", { name: "Account" }).selectOption({ label: `${person.name} (signed in)` });
  await context.close();
});

test("a session that the server refuses to go on with ends, at a reload too", async () => {
  for (const refusal of [
    { data: { refreshSession: { userErrors: [{ message: "This session has ended." }] } } },
    { errors: [{ message: "Not valid.", extensions: { code: "UNAUTHENTICATED" } }] },
  ]) {
    const page = await open(browser);
    await signIn(page, person);
    await page.route("**/graphql", (route, request) =>
      isExchange(request) ? route.fulfill({ json: refusal }) : route.fallback(),
    );
    await page.reload();
    await isReady(page);
    await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
    assert.equal(await kept(page), null);
    await page.context().close();
  }
});

test("an operation that gets no answer says so in one sentence", async () => {
  const page = await open(browser);
  const cut = await cutOff(page, (request) => request.postData()?.includes("# A first query"));
  await choose(page, "A first query");
  assert.deepEqual(await response(page), { errors: [{ message: "The server is not reached." }] });
  await cut.end();
  await page.route("**/schema.graphql*", (route) => route.abort());
  await page.getByRole("button", { name: "Schema", exact: true }).click();
  await page.getByRole("dialog", { name: "Schema" }).getByText("The server is not reached.").waitFor();
  await page.getByRole("dialog", { name: "Schema" }).getByRole("button", { name: "Close" }).click();
  await page.route("**/playground/documents.json", (route) => route.abort());
  await page.getByRole("button", { name: "Show Operations" }).click();
  await page.getByRole("region", { name: "Operations" }).getByText("The server is not reached.").waitFor();
  await page.context().close();
});

test("where the browser stores nothing, the page works until it is closed", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(90_000);
  const problems = [];
  page.on("pageerror", ({ message }) => problems.push(message));
  await page.addInitScript(() => {
    for (const name of ["localStorage", "sessionStorage"]) {
      const get = () => {
        throw new DOMException("Access is denied.", "SecurityError");
      };
      Object.defineProperty(window, name, { get });
    }
  });
  await page.goto(url);
  await isReady(page);
  await signIn(page, person);
  assert.equal(await asks(page), person.role);
  const explain = page.getByRole("switch", { name: "Explain" });
  await explain.click();
  await explain.and(page.locator("[aria-checked=true]")).waitFor();
  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  await part.getByLabel("Name of the operation").fill("Mine");
  await part.getByRole("button", { name: "Save" }).click();
  await part.getByText("This browser stores nothing for the page.").waitFor();
  await part.getByRole("button", { name: "Mine", exact: true }).waitFor();
  assert.deepEqual(problems, []);
  await context.close();
});

test("where the browser has no more room, saving says so, and settings can be changed", async () => {
  const page = await open(browser);
  await page.evaluate(() => {
    for (let size = 2 ** 20, index = 0; size >= 1; ) {
      try {
        window.localStorage.setItem(`fill:${index}`, "x".repeat(size));
        index += 1;
      } catch {
        size = Math.floor(size / 2);
      }
    }
  });
  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  await part.getByLabel("Name of the operation").fill("Mine");
  await part.getByRole("button", { name: "Save" }).click();
  await part.getByText("This browser's storage for the page is full.").waitFor();
  await part.getByRole("button", { name: "Mine", exact: true }).waitFor();
  const explain = page.getByRole("switch", { name: "Explain" });
  await explain.click();
  await explain.and(page.locator("[aria-checked=true]")).waitFor();
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});
