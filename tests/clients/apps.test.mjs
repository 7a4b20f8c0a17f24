// The example apps (examples/clients) in a real Chromium, as pages of another origin than the server's: each signs in, reads on in
// a list, renames with the new title shown at once, hears of submissions over the end of its token, and loses nothing while it is
// offline. The server takes published documents only, so an app that sends a text fails. XP_BINARY is the program.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { after, before, suite, test } from "node:test";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const run = promisify(execFile);
const EXAMPLES = join(import.meta.dirname, "../../examples/clients");
const APPS = {
  apollo: "XP Graph with Apollo Client",
  urql: "XP Graph with urql",
  relay: "XP Graph with Relay",
  "codegen-fetch": "XP Graph with generated code and fetch",
};
const ADMIN = "admin@example.com";
const PASSWORD = "xp-graph-demo";
/** Longer than signing in takes on a busy machine. */
const TOKEN_SECONDS = 12;
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

/** What the test itself asks, published under names. */
const OWN = {
  make: `mutation($input: CreateFormInput!) { createForm(input: $input) { form { id draftRevision } userErrors { message } } }`,
  publish: `mutation($input: PublishFormInput!) { publishForm(input: $input) { form { id } userErrors { message } } }`,
  submit: `mutation($input: CreateSubmissionsInput!) { createSubmissions(input: $input) { results { submission { id } userErrors { message } } } }`,
  count: `query($id: ID!) { form(id: $id) { title submissionCount } }`,
};

let home, server, endpoint, token, pages, origin, browser;

before(async () => {
  assert.ok(process.env.XP_BINARY, "XP_BINARY is not set: it names the program under test");
  // As `npm run` does, which might ask a registry for news.
  for (const words of [["scripts/generate.mjs"], ["node_modules/vite/bin/vite.js", "build"]]) {
    await run(process.execPath, words, { cwd: EXAMPLES });
  }
  home = await mkdtemp(join(tmpdir(), "xp-apps-"));
  const documents = join(home, "documents");
  await cp(join(EXAMPLES, "published"), documents, { recursive: true });
  await writeFile(join(documents, "test.json"), JSON.stringify(OWN));
  await startServer(documents);
  pages = createServer(servePage).listen(0, "127.0.0.1");
  await once(pages, "listening");
  origin = `http://localhost:${pages.address().port}`;
  browser = await chromium.launch({
    executablePath: process.env.XP_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
  if (server?.exitCode === null) {
    server.kill("SIGTERM");
    await once(server, "exit");
  }
  if (home) await rm(home, { recursive: true, force: true });
});

async function startServer(documents) {
  const env = {
    HOME: home, PATH: process.env.PATH, PORT: "0", XP_DOCUMENTS_PATH: documents, XP_DOCUMENTS_MODE: "require_id",
  };
  server = spawn(process.env.XP_BINARY, ["dev"], { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
  server.stderr.resume();
  for await (const line of createInterface({ input: server.stdout })) {
    endpoint = line.match(/GraphQL\s+(http:\S+)/)?.[1];
    if (endpoint) break;
  }
  server.stdout.resume();
  assert.ok(endpoint, "the server did not say where it is");
  while (!(await fetch(new URL("/readyz", endpoint)).catch(() => ({}))).ok) await new Promise((done) => setTimeout(done, 100));
  const { accounts } = await (await fetch(new URL("/playground/config.json", endpoint))).json();
  token = accounts.find(({ name }) => name === ADMIN).token;
}

async function servePage({ url }, answer) {
  const path = normalize(new URL(url, "http://localhost").pathname);
  const file = join(EXAMPLES, "dist", path.endsWith("/") ? `${path}index.html` : path);
  const content = await readFile(file).catch(() => null);
  answer.writeHead(content ? 200 : 404, { "content-type": TYPES[extname(file)] ?? "text/plain" }).end(content);
}

/** Asks by the name of a document of the test's own. */
async function ask(documentId, variables) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
  const response = await fetch(endpoint, { method: "POST", headers, body: JSON.stringify({ documentId, variables }) });
  const { data, errors } = await response.json();
  assert.equal(errors, undefined, JSON.stringify(errors));
  const [payload] = Object.values(data);
  assert.deepEqual(payload.userErrors ?? [], []);
  return payload;
}

/** A published form with nothing that has to be answered, but for what is given: the newest, so the first of the list. */
async function makeForm(title, ...more) {
  const fields = [{ key: "name", type: "TEXT", label: "Name" }, { key: "number", type: "INTEGER", label: "Number" }, ...more];
  const { form } = await ask("make", { input: { title, definition: { schema: 1, fields } } });
  await ask("publish", { input: { id: form.id, baseRevision: form.draftRevision } });
  return form.id;
}

/** Submits elsewhere; the submission's id. */
async function submit(formId) {
  const { results } = await ask("submit", { input: { submissions: [{ formId, data: { name: "Elsewhere" } }] } });
  return results[0].submission.id;
}

/** A token of the administrator that ends soon. */
async function mint() {
  const env = { DATABASE_URL: "sqlite:xp-dev.db", XP_AUTH_SECRET: "development: everybody knows this secret" };
  const words = ["token", "mint", "--user", ADMIN, "--ttl-seconds", String(TOKEN_SECONDS)];
  return (await run(process.env.XP_BINARY, words, { cwd: home, env })).stdout.trim();
}

/** An app's page; `sent` has the bodies of what it asks. */
async function open(app) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(90_000);
  const sent = [];
  page.on("request", (request) => {
    if (request.method() === "POST" && request.url() === endpoint) sent.push(request.postDataJSON());
  });
  await page.goto(`${origin}/?app=${app}&graph=${encodeURIComponent(endpoint)}`);
  return { page, context, sent };
}

async function signIn(page) {
  await page.getByLabel("E-mail").fill(ADMIN);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("region", { name: "Forms" }).getByRole("listitem").first().waitFor();
}

const titles = (page) => page.getByRole("region", { name: "Forms" }).getByRole("listitem").allInnerTexts();
const line = (page, text) => page.getByRole("region", { name: "Forms" }).getByRole("listitem").filter({ hasText: text });

/** Done when this is so. */
async function until(isSo, what) {
  for (let tries = 0; tries < 1_200; tries++) {
    if (await isSo()) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(what);
}

const isRefresh = ({ variables }) => variables?.input?.refreshToken !== undefined;

for (const [app, title] of Object.entries(APPS)) {
  suite(title, () => {
    test("reads on in a list, and shows a new title before the server has answered", async () => {
      const id = await makeForm(`Form for ${app}`);
      const { page, context, sent } = await open(app);
      await signIn(page);
      assert.equal((await titles(page)).length, 3);
      await page.getByRole("button", { name: "More" }).click();
      await until(async () => (await titles(page)).length > 3, "no more forms came");
      assert.equal(new Set(await titles(page)).size, (await titles(page)).length, "no form is shown twice");

      let release;
      const held = new Promise((done) => (release = done));
      await page.route(endpoint, async (route) => {
        if (route.request().postDataJSON()?.variables?.title) await held;
        await route.continue();
      });
      await line(page, `Form for ${app}`).getByRole("button", { name: "Rename" }).click();
      await line(page, `Form for ${app} ✓`).waitFor();
      assert.equal((await ask("count", { id })).title, `Form for ${app}`, "the server has not heard of it");
      release();
      await until(async () => (await ask("count", { id })).title === `Form for ${app} ✓`, "it was not renamed");
      await line(page, `Form for ${app} ✓`).waitFor();
      assert.ok(sent.length >= 4);
      for (const body of sent) assert.equal(body.query, undefined, "documents are sent by their id");
      await context.close();
    });

    test("takes the new title back where it cannot be had", async () => {
      await makeForm(`Kept by ${app}`);
      const { page, context } = await open(app);
      await signIn(page);
      await page.route(endpoint, (route) =>
        route.request().postDataJSON()?.variables?.title ? route.abort() : route.continue(),
      );
      await line(page, `Kept by ${app}`).getByRole("button", { name: "Rename" }).click();
      await until(async () => (await page.getByRole("alert").innerText()) !== "", "nothing was said");
      assert.match((await titles(page))[0], new RegExp(`^Kept by ${app} \\(`));
      await context.close();
    });

    test("hears of submissions, also after its token has ended, and makes one new token for all", async () => {
      const id = await makeForm(`Heard by ${app}`);
      const { page, context, sent } = await open(app);
      const short = await mint();
      await page.route(endpoint, async (route) => {
        if (!route.request().postDataJSON()?.variables?.input?.password) return route.continue();
        const response = await route.fetch();
        const answer = await response.json();
        answer.data.signIn.accessToken = short;
        // The app takes it for a good one until it ends.
        answer.data.signIn.accessTokenExpiresAt = new Date(Date.now() + 1000 * (TOKEN_SECONDS + 20)).toISOString();
        return route.fulfill({ response, json: answer });
      });
      await signIn(page);
      const heard = page.getByRole("region", { name: "Submissions" }).locator("ol li");
      const written = [];
      const write = async () => written.push(await submit(id));
      await until(async () => (await write(), await heard.count()) > 0, "no event came");
      // The socket or the stream ends with the token; by then the app knows it to be old.
      await until(async () => (await write(), sent.some(isRefresh)), "the token was not exchanged when the stream ended");
      const before = await heard.count();
      await until(async () => (await write(), await heard.count()) > before, "no event came with the next token");
      const { submissionCount } = await ask("count", { id });
      await line(page, `Heard by ${app} (${submissionCount})`).waitFor();
      // From the first that was heard on: also what was written while the stream was away, each once.
      const ids = () => heard.allInnerTexts();
      const since = written.slice(written.indexOf((await ids())[0]));
      await until(async () => (await heard.count()) >= since.length, "what was written while the stream was away is missing");
      assert.deepEqual(await ids(), since);
      assert.equal(sent.filter(isRefresh).length, 1, "it was exchanged once");
      await context.close();
    });

    test("says why a submission is refused, and does not send it again", async () => {
      const id = await makeForm(`Strict by ${app}`, { key: "needed", type: "TEXT", label: "Needed", required: true });
      const { page, context, sent } = await open(app);
      await signIn(page);
      await line(page, `Strict by ${app}`).waitFor();
      await page.getByRole("button", { name: "Submit to the first form" }).click();
      await page.getByRole("alert").getByText(/^The submission is refused: .+/).waitFor();
      await until(async () => (await page.locator("#waiting").innerText()) === "0", "it still waits");
      const submissions = () => sent.filter(({ variables }) => variables?.input?.submissions).length;
      assert.equal(submissions(), 1);
      await context.setOffline(true);
      await context.setOffline(false);
      await page.waitForTimeout(500);
      assert.equal(submissions(), 1);
      assert.equal((await ask("count", { id })).submissionCount, 0);
      await context.close();
    });

    test("keeps what was made offline, and sends it once", async () => {
      const id = await makeForm(`Field of ${app}`);
      const { page, context } = await open(app);
      await signIn(page);
      await line(page, `Field of ${app}`).waitFor();
      const button = page.getByRole("button", { name: "Submit to the first form" });
      await context.setOffline(true);
      await button.click();
      await button.click();
      await until(async () => (await page.locator("#waiting").innerText()) === "2", "they are not kept");
      assert.equal((await ask("count", { id })).submissionCount, 0);
      // The first answer is lost on its way: what was stored is sent again.
      let isLost = false;
      await page.route(endpoint, async (route) => {
        if (isLost || !route.request().postDataJSON()?.variables?.input?.submissions) return route.continue();
        isLost = true;
        await route.fetch();
        return route.abort();
      });
      await context.setOffline(false);
      await until(() => isLost, "nothing was sent when the network was back");
      await until(async () => (await page.locator("#waiting").innerText()) === "0", "they still wait");
      assert.equal((await ask("count", { id })).submissionCount, 2);
      await context.close();
    });
  });
}

test("the number of forms is that of now, by a live query of urql's edition", async () => {
  await makeForm("Counted first");
  const { page, context, sent } = await open("urql");
  await signIn(page);
  const total = async () => Number((await page.locator("#total").innerText()).match(/Forms in all: (\d+)/)?.[1]);
  await until(async () => (await total()) > 0, "no number is shown");
  for (let round = 0; round < 3; round++) {
    const before = await total();
    await makeForm(`Counted ${round}`);
    await until(async () => (await total()) === before + 1, `${before} forms are still shown`);
  }
  assert.ok(!sent.some(({ query }) => query), "documents are sent by their id");
  await context.close();
});
