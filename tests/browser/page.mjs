// A real Chromium on the playground of a running server (XP_URL), as the tests of this folder share it. XP_CHROMIUM names
// another browser, XP_SCREENSHOTS a folder that takes pictures, XP_DOCUMENTS the one that the server reads published documents
// from. Not here: what is tested.
import assert from "node:assert/strict";
import { join } from "node:path";
import axe from "axe-core";
import { chromium } from "playwright-core";

export const url = process.env.XP_URL;
assert.ok(url, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8000");

/** Parts of the page that are GraphiQL's and the editor's own, and not ours to mend. */
const NOT_OURS = [".graphiql-logo", ".graphiql-tabs", ".monaco-editor", ".graphiql-sidebar", ".graphiql-editor-tools"];

export function launch(args = []) {
  return chromium.launch({
    executablePath: process.env.XP_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", ...args],
  });
}

/** A new visitor's page, ready to be used. */
export async function open(browser, options = {}, path = "/") {
  const context = await browser.newContext({ viewport: { width: 1360, height: 850 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(90_000);
  page.complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(error.message));
  await page.goto(new URL(path, url).href);
  await isReady(page);
  return page;
}

export async function isReady(page) {
  await page.getByRole("button", { name: "Examples" }).and(page.locator(":enabled")).waitFor();
  await page.locator(".graphiql-query-editor .view-lines").waitFor();
}

/** Opens an example of the menu. */
export async function choose(page, title) {
  await page.getByRole("button", { name: "Examples" }).click();
  await page.getByRole("menuitem", { name: title }).click();
}

/**
 * Opens the menu whose button has the focus, and picks an entry by the first letter of its title: by the keyboard alone. A letter
 * goes to the menu only once that has taken the focus, and the focus follows the letter a moment later.
 */
export async function pickByLetter(page, title) {
  await page.keyboard.press("Enter");
  await page.getByRole("menuitem").and(page.locator(":focus")).waitFor();
  await page.keyboard.press(title[0]);
  await hasFocus(page, page.getByRole("menuitem", { name: title }));
  await page.keyboard.press("Enter");
}

/** Done when this has the focus. */
export function hasFocus(page, target) {
  return target.and(page.locator(":focus")).waitFor();
}

/** Signs in with the form, and closes what is shown after that. */
export async function signIn(page, { name, password }) {
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  const form = page.getByRole("dialog", { name: "Sign in" });
  await form.getByLabel("E-mail").fill(name);
  await form.getByLabel("Password").fill(password);
  await form.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("dialog", { name: "Sessions" }).getByRole("button", { name: "Close" }).click();
}

/** Done when this account is the chosen one. */
export function isChosen(page, text) {
  return page.waitForFunction(
    (wanted) => document.querySelector(".xp-account select")?.selectedOptions[0].text.includes(wanted),
    text,
  );
}

/** What the bar on top says. */
export function note(page, text) {
  return page.locator(".xp-note").getByText(text);
}

export async function accounts() {
  return (await (await fetch(new URL("/playground/config.json", url))).json()).accounts;
}

/** What a model of the editor holds: the screen shows only the lines in view. */
export function model(page, ending) {
  return page.evaluate(
    (name) => globalThis.__MONACO.editor.getModels().find(({ uri }) => uri.path.endsWith(name)).getValue(),
    ending,
  );
}

/** Done when this is true, or yields something that is. */
export async function eventually(page, isTrue) {
  for (const began = Date.now(); !(await isTrue()); await page.waitForTimeout(100)) {
    assert.ok(Date.now() - began < 90_000, `this does not come to be: ${isTrue}`);
  }
}

/** Done when the editor holds a text that this matches. */
export function holds(page, ending, text) {
  return page.waitForFunction(
    ([name, wanted]) =>
      globalThis.__MONACO?.editor.getModels().find(({ uri }) => uri.path.endsWith(name))?.getValue().includes(wanted),
    [ending, text],
  );
}

/**
 * The response to the next operation with this text in it: others, such as the questions of the page itself, may be answered at
 * any time.
 */
export function responded(page, text) {
  const isMeant = (response) => {
    if (new URL(response.url()).pathname !== "/graphql" || response.request().method() !== "POST") return false;
    return response.request().postDataJSON().query.includes(text);
  };
  return page.waitForResponse(isMeant);
}

/** The answer to the next operation with this text in it, as the server sent it. */
export async function answered(page, text) {
  return (await responded(page, text)).json();
}

/** Opens an example of the menu that runs by that; its answer. The text of an example begins with its title. */
export async function runExample(page, title) {
  const sent = answered(page, `# ${title}`);
  await choose(page, title);
  return sent;
}

/** Opens an example that a click does not run. */
export async function fillIn(page, title) {
  await choose(page, title);
  await holds(page, "operation.graphql", `# ${title}`);
}

/** Done when nothing moves any more that comes to an end: what fades in is there. */
export function isStill(page) {
  return page.waitForFunction(() =>
    document.getAnimations().every(({ playState, effect }) => {
      return playState !== "running" || effect.getComputedTiming().endTime === Infinity;
    }),
  );
}

/**
 * Does this again and again until something is to be seen. A page says that it listens when the connection stands; the server may
 * hear of its subscription a moment later, and what happened before that is not sent.
 */
export async function repeatUntil(page, shown, work) {
  for (const began = Date.now(); Date.now() - began < 60_000 && !(await shown.isVisible()); ) {
    await work();
    await page.waitForTimeout(250);
  }
  await shown.waitFor();
}

/** Types into the editors of a new tab. */
export async function write(page, query, variables = "") {
  await page.getByRole("button", { name: "New tab" }).click();
  await page.evaluate(
    (texts) => {
      const models = globalThis.__MONACO.editor.getModels();
      for (const [name, text] of texts) models.find(({ uri }) => uri.path.endsWith(name)).setValue(text);
    },
    [["operation.graphql", query], ["variables.json", variables]],
  );
}

/** The answer in the response editor, once it is a whole one. */
export async function response(page) {
  await page.waitForFunction(() => {
    const { editor } = globalThis.__MONACO;
    const text = editor.getModels().find(({ uri }) => uri.path.endsWith("response.json")).getValue();
    return /[}\]]\s*$/.test(text) && !document.querySelector(".graphiql-spinner");
  });
  return JSON.parse(await model(page, "response.json"));
}

/** What the bar under the answer says of it by this name. */
export function fact(page, name) {
  const isNamed = page.locator("dt", { hasText: new RegExp(`^${name}$`) });
  return page.locator(".xp-facts > div").filter({ has: isNamed }).locator("dd").innerText();
}

/** What an entry of the menu *Copy* puts into the clipboard. */
export async function copied(page, entry) {
  await page.evaluate(() => navigator.clipboard.writeText(""));
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  // What is said of a copy goes with the next one, and after some seconds.
  const noted = page.locator(".xp-copied").getByText("Copied").waitFor();
  await page.getByRole("menuitem", { name: entry }).click();
  await noted;
  await page.waitForFunction(async () => (await navigator.clipboard.readText()) !== "");
  return page.evaluate(() => navigator.clipboard.readText());
}

export function run(page) {
  return page.locator(".graphiql-execute-button").click();
}

/** Asks the graph without the page. */
export async function post(query, variables, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(new URL("/graphql", url), { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  return response.json();
}

/** A picture, where somebody wants to look at one. */
export async function picture(page, name) {
  const folder = process.env.XP_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
}

/** What axe finds to be serious or critical, of what is ours. */
export async function findings(page) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(
    (exclude) => globalThis.axe.run({ exclude: exclude.map((part) => [part]) }, { resultTypes: ["violations"] }),
    NOT_OURS,
  );
  return violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .flatMap(({ id, nodes }) => nodes.map(({ target, html }) => ({ id, target: target.join(" "), html: html.slice(0, 160) })));
}
