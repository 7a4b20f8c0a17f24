// The playground as a person meets it: a real Chromium against a running server (XP_URL). No server is started here and
// nothing of the page's code is imported; what the graph answers is tested elsewhere.
// XP_CHROMIUM names another browser, XP_SCREENSHOTS a folder that takes pictures.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  answered,
  eventually,
  fillIn,
  holds,
  isReady,
  launch,
  model,
  picture,
  repeatUntil,
  response,
  run,
  runExample,
} from "./page.mjs";

const url = process.env.XP_URL;
assert.ok(url, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8000");
const origin = new URL(url).origin;

const EXAMPLES = [
  "A first query",
  "W1: one user",
  "W2: users, sessions, forms",
  "W3: entities for a gateway",
  "W4: forms, submissions, people",
  "Variable batch: three users at once",
  "Entities, a first look",
  "Latest locations in a box",
];
const LIVE = [
  "Live: positions as they come in",
  "Live: submissions to a form",
  "Live: sessions that end",
  "Live: a form and its newest submissions",
];

let browser;
let page;
let policy;
let accounts;
const elsewhere = [];
/** The bodies that the page has sent to change something. */
const mutations = [];
const complaints = [];

before(async () => {
  browser = await launch(["--disable-component-update", "--disable-sync"]);
  const context = await browser.newContext({ viewport: { width: 1360, height: 850 } });
  page = await context.newPage();
  page.setDefaultTimeout(90_000);
  page.on("request", (request) => {
    const target = new URL(request.url());
    if (!["blob:", "data:"].includes(target.protocol) && target.origin !== origin) elsewhere.push(target.href);
    if (/"query":"[^"]*mutation\b/.test(request.postData() ?? "")) mutations.push(request.postData());
  });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  accounts = (await (await fetch(new URL("/playground/config.json", url))).json()).accounts;
  const response = await page.goto(url);
  policy = response.headers()["content-security-policy"];
  await isReady(page);
});

after(async () => {
  await browser?.close();
});

test("the page comes with a policy that allows no other host and no inline script", () => {
  assert.ok(policy, "no Content-Security-Policy header");
  const scripts = directive("script-src") ?? directive("default-src");
  assert.deepEqual(scripts, ["'self'"]);
  assert.doesNotMatch(policy, /https?:|\*/);
});

test("the title says XP Graph", async () => {
  assert.equal(await page.title(), "XP Graph");
  await page.getByRole("heading", { name: "XP Graph" }).waitFor();
});

test("the Authorization header is prefilled with the first account's token", async () => {
  assert.ok(accounts.length >= 2, "the server offers no demo accounts");
  assert.equal((await headers()).Authorization, `Bearer ${accounts[0].token}`);
});

test("the docs explorer shows what the Query type is", async () => {
  await page.getByRole("button", { name: "Show Documentation Explorer" }).click();
  await page.locator(".graphiql-doc-explorer").getByRole("link", { name: "Query", exact: true }).click();
  const description = page.locator(".graphiql-doc-explorer-content .graphiql-markdown-description").first();
  assert.ok((await description.innerText()).trim().length > 10, "the Query type has no description");
  await page.locator(".graphiql-doc-explorer").getByRole("link", { name: "users", exact: true }).waitFor();
  await page.getByRole("button", { name: "Hide Documentation Explorer" }).click();
});

test("completion offers fields while typing", async () => {
  await page.getByRole("button", { name: "New tab" }).click();
  await page.locator(".graphiql-query-editor .monaco-editor .view-lines").click();
  await page.keyboard.type("{ use", { delay: 60 });
  await page.locator(".suggest-widget.visible .monaco-list-row").filter({ hasText: "users" }).first().waitFor();
  await page.keyboard.press("Escape");
});

for (const example of EXAMPLES) {
  test(`the example "${example}" opens in a new tab and is answered with data`, async () => {
    const tabs = await page.locator(".graphiql-tab").count();
    await runExample(page, example);
    for (const answer of [await response(page)].flat()) {
      assert.equal(answer.errors, undefined, JSON.stringify(answer.errors));
      assert.ok(answer.data);
      for (const [field, value] of Object.entries(answer.data)) {
        assert.ok(value !== null && value?.length !== 0, `${field} is empty`);
      }
    }
    assert.equal(await page.locator(".graphiql-tab").count(), tabs + 1);
    if (example.startsWith("W2")) await picture(page, "page-desktop");
  });
}

for (const example of LIVE) {
  test(`the example "${example}" is filled in, and waits for events once it is started`, async () => {
    await fillIn(page, example);
    await page.getByRole("status").getByText("Press the run button to listen").waitFor();
    const acknowledged = acknowledgement();
    await run(page);
    await acknowledged;
    await subscribed();
    if (example === LIVE[0]) {
      await repeatUntil(page, page.locator(".graphiql-response .view-lines").getByText("47.25"), () => record(47.25));
    }
    await run(page);
  });
}

test("no click on an example changes anything: what writes is filled in, and run by its button", async () => {
  mutations.length = 0;
  await page.getByRole("button", { name: "Examples" }).click();
  const groups = await page.locator(".xp-group").allInnerTexts();
  assert.deepEqual(groups, ["First steps", "Workloads", "Forms", "Field data", "Webhooks", "Accounts", "Federation"]);
  const writing = page.getByRole("menuitem").filter({ hasText: "changes data" });
  const count = await writing.count();
  assert.ok(count >= 15, `${count} examples that write`);
  await page.keyboard.press("Escape");
  for (let index = 0; index < count; index++) {
    await page.getByRole("button", { name: "Examples" }).click();
    const title = await writing.nth(index).locator(".xp-item-title").evaluate(({ firstChild }) => firstChild.textContent);
    await writing.nth(index).click();
    await holds(page, "operation.graphql", `# ${title}\n`);
    assert.match(await model(page, "operation.graphql"), /^mutation /m, title);
  }
  await page.getByRole("status").getByText("Press the run button to run it").waitFor();
  await page.waitForTimeout(500);
  assert.deepEqual(mutations, []);

  await fillIn(page, "Record positions");
  const sent = answered(page, "# Record positions");
  await run(page);
  await sent;
  const answer = await response(page);
  assert.equal(answer.errors, undefined, JSON.stringify(answer.errors));
  assert.ok(answer.data.recordLocations.acceptedCount > 0);
  // What was said of it is not true any more.
  await page.getByText("Filled in, not run").waitFor({ state: "detached" });
  assert.equal(mutations.length, 1, "those that are sent are seen");
});

test("no character of an answer is framed as one to be mistaken for another", async () => {
  await runExample(page, "W4");
  assert.match(JSON.stringify(await response(page)), /[–ườ]/, "the demo data has such characters");
  const read = () => globalThis.__MONACO.editor.getEditors().map((editor) => editor.getRawOptions().unicodeHighlight);
  // An editor that was just made gets its options a moment later.
  await eventually(page, async () => (await page.evaluate(read)).every(Boolean));
  const asked = await page.evaluate(read);
  assert.ok(asked.length >= 4, `${asked.length} editors`);
  const off = { ambiguousCharacters: false, invisibleCharacters: false, nonBasicASCII: false };
  for (const highlighted of asked) for (const kind in off) assert.equal(highlighted[kind], false, kind);
  // A frame that was drawn before the options came goes a moment later.
  await page.waitForFunction(() => document.querySelectorAll(".unicode-highlight").length === 0);
});

test("a browser that is sent to the graph's address comes to the page", async () => {
  const other = await page.context().newPage();
  await other.goto(new URL("/graphql", url).href);
  assert.equal(other.url(), new URL("/", url).href);
  await other.close();
});

test("on a phone everything can be seen and pressed", async () => {
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, hasTouch: true });
  const phone = await context.newPage();
  phone.setDefaultTimeout(90_000);
  await phone.goto(url);
  await phone.getByRole("button", { name: "Examples" }).and(phone.locator(":enabled")).waitFor();
  await phone.getByRole("button", { name: "Examples" }).tap();
  await phone.getByRole("menuitem", { name: "A first query" }).tap();
  await phone.locator(".graphiql-response .view-lines").getByText("displayName").first().waitFor();
  const parts = {};
  for (const [name, part] of Object.entries({
    title: phone.getByRole("heading", { name: "XP Graph" }),
    examples: phone.getByRole("button", { name: "Examples" }),
    account: phone.getByRole("combobox", { name: "Account" }),
    signIn: phone.getByRole("button", { name: "Sign in", exact: true }),
    run: phone.locator(".graphiql-execute-button"),
    answer: phone.locator(".graphiql-response"),
    docs: phone.getByRole("button", { name: "Show Documentation Explorer" }),
    settings: phone.getByRole("button", { name: "Open settings dialog" }),
  })) {
    parts[name] = await part.boundingBox();
    assert.ok(parts[name], `${name} is not to be seen`);
  }
  for (const [name, { x, y, width, height }] of Object.entries(parts)) {
    assert.ok(x >= 0 && y >= 0 && x + width <= 390 && y + height <= 844, `${name} sticks out`);
    for (const [other, box] of Object.entries(parts)) {
      const apart = box.x >= x + width || x >= box.x + box.width || box.y >= y + height || y >= box.y + box.height;
      assert.ok(apart || other === name, `${name} and ${other} lie on each other`);
    }
  }
  assert.ok(parts.answer.width > 300 && parts.answer.height > 250, JSON.stringify(parts.answer));
  assert.ok(parts.account.width > 150, JSON.stringify(parts.account));
  assert.equal(await phone.evaluate(() => document.documentElement.scrollWidth), 390);
  await picture(phone, "page-phone");
  await phone.getByRole("button", { name: "Show Documentation Explorer" }).tap();
  const docs = await phone.locator(".graphiql-doc-explorer").boundingBox();
  assert.ok(docs.height > 500 && docs.width > 300, JSON.stringify(docs));
  await context.close();
});

test("switching the account changes who asks, in this tab and in the next", async () => {
  const select = page.getByRole("combobox", { name: "Account" });
  await select.selectOption(accounts[1].name);
  assert.equal((await headers()).Authorization, `Bearer ${accounts[1].token}`);
  await runExample(page, EXAMPLES[0]);
  assert.equal((await response(page)).data.me.role, accounts[1].role);
  await select.selectOption({ label: "anonymous (no token)" });
  assert.equal((await headers()).Authorization, undefined);
  await select.selectOption(accounts[0].name);
  assert.equal((await headers()).Authorization, `Bearer ${accounts[0].token}`);
});

test("who signs in with the form asks the graph, sees the sessions of the account and ends them", async () => {
  const account = accounts.find(({ role }) => role === "VIEWER");
  // Another session of the same account, as another device would make it.
  const elsewhereToken = await signIn(account, "Tablet");
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  const form = page.getByRole("dialog", { name: "Sign in" });
  await form.getByLabel("E-mail").fill(account.name);
  await form.getByLabel("Password").fill("not the password");
  await form.getByRole("button", { name: "Sign in" }).click();
  await form.getByText("Wrong e-mail or password").waitFor();
  await form.getByLabel("Password").fill(account.password);
  await form.getByRole("button", { name: "Sign in" }).click();

  const sessions = page.getByRole("dialog", { name: "Sessions" });
  await sessions.getByText("(this one)").waitFor();
  assert.equal(await me(elsewhereToken), account.role);
  await sessions.getByRole("listitem").filter({ hasText: "Tablet" }).getByRole("button", { name: "End" }).click();
  await sessions.getByText("Tablet").waitFor({ state: "detached" });
  assert.equal(await me(elsewhereToken), 401);
  await picture(page, "sessions-desktop");

  await sessions.getByRole("button", { name: "Close" }).click();
  await page.waitForFunction(() => document.querySelector(".xp-account select").selectedOptions[0].text.includes("signed in"));
  // The header follows who has signed in.
  const isNew = ({ Authorization: value }) => value && accounts.every(({ token }) => value !== `Bearer ${token}`);
  await eventually(page, async () => isNew(await headers()));
  const { Authorization } = await headers();
  await runExample(page, EXAMPLES[0]);
  assert.equal((await response(page)).data.me.role, account.role);

  await page.getByRole("button", { name: "Sessions", exact: true }).click();
  await sessions.getByRole("button", { name: "Sign out" }).click();
  const again = page.getByRole("dialog", { name: "Sign in" });
  await again.getByRole("button", { name: "Close" }).click();
  assert.equal(await me(Authorization.replace("Bearer ", "")), 401);
  await eventually(page, async () => (await headers()).Authorization === `Bearer ${accounts[0].token}`);
});

test("nothing went to another host, and the console stayed silent", () => {
  assert.deepEqual(elsewhere, []);
  assert.deepEqual(complaints, []);
});

/** Done when a new socket has been told `connection_ack`; listens from the first frame on, since that may be it. */
function acknowledgement() {
  return new Promise((done, fail) => {
    const late = setTimeout(() => fail(new Error("no socket was acknowledged")), 90_000);
    page.once("websocket", (socket) => {
      socket.on("framereceived", ({ payload }) => {
        if (!String(payload).includes("connection_ack")) return;
        clearTimeout(late);
        done();
      });
    });
  });
}

/** Done when the server counts a subscription. */
async function subscribed() {
  await eventually(page, async () => {
    const text = await (await fetch(new URL("/metrics", url))).text();
    return /graphql_server_subscriptions\{transport="websocket"\} [1-9]/.test(text);
  });
}

let ahead = 60_000;
/** A position of the first account. */
async function record(latitude) {
  const query = `mutation($point: LocationPointInput!) { recordLocations(input: { points: [$point] }) { acceptedCount } }`;
  // One that is no later than the last is no event.
  ahead += 1_000;
  const point = { timestamp: new Date(Date.now() + ahead).toISOString(), latitude, longitude: 8 };
  const headers = { authorization: `Bearer ${accounts[0].token}` };
  const sent = await post({ query, variables: { point } }, headers);
  assert.equal((await sent.json()).data.recordLocations.acceptedCount, 1);
}

/** Signs in outside the page; the access token. */
async function signIn({ name, password }, sessionName) {
  const query = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken } }";
  const variables = { input: { email: name, password, sessionName } };
  const { data } = await (await post({ query, variables })).json();
  return data.signIn.accessToken;
}

/** The role of who bears this token; the status where the token is refused. */
async function me(token) {
  const answer = await post({ query: "{ me { role } }" }, { authorization: `Bearer ${token}` });
  return answer.ok ? (await answer.json()).data.me.role : answer.status;
}

function post(body, headers = {}) {
  const target = new URL("/graphql", url);
  return fetch(target, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
}

function directive(name) {
  const found = policy.split(";").map((part) => part.trim().split(/\s+/)).find(([first]) => first === name);
  return found?.slice(1);
}

async function headers() {
  return JSON.parse((await model(page, "request-headers.json")) || "{}");
}
