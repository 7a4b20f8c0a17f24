// An operation with a list of sets of variables in a real browser: it is sent as one request, its answers are shown as one list, with
// what the server says of all of them, and the list goes wherever the operation does. Not here: what the sets share
// (the server's own tests).
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import {
  accounts,
  copied,
  fact,
  findings,
  holds,
  isReady,
  launch,
  model,
  open,
  picture,
  post,
  responded,
  response,
  run,
  runExample,
  write,
} from "./page.mjs";

const TITLE = "Variable batch: three users at once";
let browser, page, people;

before(async () => {
  people = await accounts();
  browser = await launch();
  page = await open(browser, { permissions: ["clipboard-read", "clipboard-write"] });
});
after(() => browser?.close());

const panel = () => page.getByRole("region", { name: "Explain", exact: true });
const total = (name) =>
  panel().locator(".xp-totals > div").filter({ has: page.getByText(name, { exact: true }) }).locator("dd");

/** Runs what stands in the editors with these variables; the response. */
async function runWith(text, variables) {
  await write(page, text, variables);
  const sent = responded(page, text);
  await run(page);
  return sent;
}

test("the example is sent as one request, and its answers are shown as one list", async () => {
  const sent = responded(page, `# ${TITLE}`);
  const answers = await runExample(page, TITLE);
  const { variables } = (await sent).request().postDataJSON();
  assert.equal(variables.length, 3);
  assert.equal(new Set(variables.map(({ id }) => id)).size, 3, "three users");
  assert.deepEqual(answers.map(({ data }) => data.user.id), variables.map(({ id }) => id));
  assert.deepEqual(await response(page), answers);
  assert.deepEqual(answers.map(({ variableIndex }) => variableIndex), [0, 1, 2]);
  await picture(page, "batch-desktop");
});

test("the bar says status, size and time of all answers, how many there are, and how many have errors", async () => {
  const known = JSON.parse(await model(page, "variables.json"))[0].id;
  const text = "query Bar($id: ID!) { user(id: $id) { id } }";
  const sent = await runWith(text, JSON.stringify([{ id: known }, {}, { id: "x" }, { id: known }]));
  const answers = await response(page);
  assert.deepEqual(answers.map(({ errors }) => errors?.length), [undefined, 1, 1, undefined]);
  assert.equal(await fact(page, "Status"), "200");
  assert.equal(await fact(page, "Variable sets"), "4, 2 with errors");
  const bytes = (await sent.body()).length;
  assert.equal(await fact(page, "Size"), bytes < 1024 ? `${bytes} B` : `${(bytes / 1024).toFixed(1)} KB`);
  assert.match(await fact(page, "Time"), /^[\d.]+ ms$/);
  await runWith("query Whole($id: ID!) { user(id: $id) { id } }", JSON.stringify([{ id: known }]));
  assert.equal((await response(page)).length, 1, "a list of one is a list");
  assert.equal(await fact(page, "Variable sets"), "1");
});

test("explain shows the one execution of a query's sets, and the bar what all of them cost", async () => {
  await page.getByRole("switch", { name: "Explain" }).click();
  const answers = await runExample(page, TITLE);
  const { explain } = answers[2].extensions;
  assert.ok(answers.slice(0, 2).every(({ extensions }) => !extensions), "the server tells it once");
  await panel().waitFor();
  assert.equal(await total("Variable sets").innerText(), "3");
  assert.equal(await total("Statements").innerText(), String(explain.sql.length));
  assert.equal(await total("Cost").innerText(), `${explain.cost} of ${explain.maxCost}`);
  assert.equal(await fact(page, "Cost"), `${explain.cost} of ${explain.maxCost}`);
  const users = panel().locator(".xp-row-batch").filter({ has: page.getByText("user.by_ids", { exact: true }) });
  assert.match(await users.locator(".xp-row-detail").innerText(), /^3 keys, 3 found/);
  assert.equal(await panel().getByRole("combobox").count(), 0, "there is nothing to choose");
  assert.ok((await response(page)).every(({ extensions }) => !extensions), "the answers are shown without it");

  // One set costs a third of it.
  const text = await model(page, "operation.graphql");
  const [set] = JSON.parse(await model(page, "variables.json"));
  const alone = await (await runWith(text, JSON.stringify(set))).json();
  assert.equal(3 * alone.extensions.explain.cost, explain.cost);
  assert.deepEqual(await findings(page), []);
  await picture(page, "batch-explain-desktop");
});

test("explain shows each set of a mutation, which runs by itself", async () => {
  const text = "mutation Sets($name: String!) { updateProfile(input: { displayName: $name }) { user { displayName } } }";
  const { me } = (await post("{ me { displayName } }", {}, people[0].token)).data;
  const names = ["One", "Two", me.displayName];
  const answers = await (await runWith(text, JSON.stringify(names.map((name) => ({ name }))))).json();
  assert.deepEqual(answers.map(({ errors, data }) => errors ?? data.updateProfile.user.displayName), names);
  const explains = answers.map(({ extensions }) => extensions.explain);
  assert.deepEqual(explains.map((explain) => "document" in explain), [true, false, false], "it is looked for once");
  await panel().waitFor();
  const choice = panel().getByRole("combobox", { name: "Variable set" });
  assert.deepEqual(await choice.locator("option").allTextContents(), ["0", "1", "2"]);
  for (const [index, explain] of explains.entries()) {
    await choice.selectOption(String(index));
    assert.equal(await total("Cost").innerText(), `${explain.cost} of ${explain.maxCost}`);
    const shown = await panel().locator(".xp-row-statement .xp-row-label").allInnerTexts();
    assert.deepEqual(shown.sort(), explain.sql.map(({ name }) => name).sort());
  }
  const [{ maxCost }] = explains;
  assert.equal(await fact(page, "Cost"), `${explains.reduce((sum, { cost }) => sum + cost, 0)} of ${maxCost}`);
  assert.deepEqual(await findings(page), []);
  await picture(page, "batch-mutation-desktop");
  await page.getByRole("switch", { name: "Explain" }).click();
});

test("variables that are not a list of sets are not sent, and the page says why", async () => {
  const asked = [];
  const note = (request) => asked.push(request.postData());
  page.on("request", note);
  for (const wrong of ["[]", "[1]", '[{ "id": "a" }, null]', "[[{}]]", '"a"']) {
    await write(page, "query Wrong($id: ID!) { user(id: $id) { id } }", wrong);
    await run(page);
    await holds(page, "response.json", "Variables are neither a JSON object nor a list of JSON objects.");
  }
  await write(page, "query Wrong($id: ID!) { user(id: $id) { id } }", '[{ "id": }]');
  await run(page);
  await holds(page, "response.json", "Variables are invalid JSON: expected a value at line 1, column 10.");
  page.off("request", note);
  assert.deepEqual(asked.filter((body) => body?.includes("query Wrong")), []);
});

test("where the server takes no list, its words are shown", async () => {
  await write(page, "subscription Many { locationUpdated { latitude } }", "[{}, {}]");
  await run(page);
  await holds(page, "response.json", "A subscription takes one set of variables, not a list of them.");
  await page.locator(".xp-facts").getByText("A subscription takes one set of variables, not a list of them.").waitFor();

  const select = page.getByRole("combobox", { name: "Account" });
  await select.selectOption({ label: "anonymous (no token)" });
  await runWith("query Anonymous { __typename }", "[{}]");
  await holds(page, "response.json", "a list of them is taken from signed-in callers and gateways");
  assert.equal(await fact(page, "Status"), "400");
  await select.selectOption(people[0].name);
});

/** What the editor of the variables marks, once it is so much. */
async function marked(count) {
  const found = await page.waitForFunction((wanted) => {
    const { editor } = globalThis.__MONACO;
    const { uri: resource } = editor.getModels().find(({ uri }) => uri.path.endsWith("variables.json"));
    const markers = editor.getModelMarkers({ resource });
    return markers.length === wanted && markers.map(({ message }) => message).sort();
  }, count);
  return found.jsonValue();
}

test("the editor marks what does not fit in a set, and does not mark a list", async () => {
  const wrong = '{ "ids": "b" }';
  // By turns, so that what is marked changes each time.
  const messages = [];
  const rounds = [[wrong, 2], ['[{ "id": "a" }, { "id": "b" }]', 0], [`[{ "id": "a" }, ${wrong}]`, 2], ['{ "id": "a" }', 0]];
  for (const [variables, count] of rounds) {
    await write(page, "query Marked($id: ID!) { user(id: $id) { id } }", variables);
    messages.push(await marked(count));
  }
  assert.deepEqual(messages[2], messages[0]);
  assert.match(messages[0].join(" "), /Missing property "id"/);
});

test("a copied command and copied code send the list", async () => {
  await runExample(page, TITLE);
  const answers = await response(page);
  const command = await copied(page, "cURL, without the token");
  const env = { ...process.env, TOKEN: people[0].token };
  assert.deepEqual(JSON.parse(execFileSync("sh", ["-c", command], { env, encoding: "utf8" })), answers);
  const code = await copied(page, "JavaScript (fetch)");
  const ask = new Function("token", `return (async () => { ${code}; return answers; })()`);
  assert.deepEqual(await ask(people[0].token), answers);
});

test("a link, an operation that is kept, a reload and the prettifier keep the list", async () => {
  await runExample(page, TITLE);
  const list = JSON.parse(await model(page, "variables.json"));
  const listIs = async (shown) => assert.deepEqual(JSON.parse(await model(shown, "variables.json")), list);
  const link = new URL(await copied(page, "Link to this operation"));
  const other = await open(browser, {}, link.pathname + link.hash);
  await holds(other, "operation.graphql", `# ${TITLE}`);
  await listIs(other);
  await other.context().close();

  await page.getByRole("button", { name: "Show Operations" }).click();
  const part = page.getByRole("region", { name: "Operations" });
  await part.getByLabel("Name of the operation").fill("Several users");
  await part.getByRole("button", { name: "Save" }).click();
  await part.getByRole("button", { name: "Several users", exact: true }).waitFor();
  await page.waitForFunction((title) => window.localStorage.getItem("graphiql:tabState")?.includes(title), TITLE);
  await page.reload();
  await isReady(page);
  await holds(page, "operation.graphql", `# ${TITLE}`);
  await listIs(page);
  await write(page, "{ __typename }");
  await part.getByRole("button", { name: "Several users", exact: true }).click();
  await holds(page, "operation.graphql", `# ${TITLE}`);
  await listIs(page);
  await part.getByRole("button", { name: "Remove Several users" }).click();
  await page.getByRole("button", { name: "Hide Operations" }).click();

  await write(page, "query Pretty($id: ID!) { user(id: $id) { id } }", JSON.stringify(list));
  await page.getByRole("button", { name: /Prettify/ }).click();
  await holds(page, "variables.json", "\n  {\n");
  await listIs(page);
});

test("on a phone and in the dark it can be read", async () => {
  for (const [name, options] of [
    ["batch-dark", { colorScheme: "dark" }],
    ["batch-phone", { viewport: { width: 390, height: 844 }, hasTouch: true }],
  ]) {
    const other = await open(browser, options);
    await other.getByRole("switch", { name: "Explain" }).click();
    await runExample(other, TITLE);
    await other.getByRole("region", { name: "Explain", exact: true }).waitFor();
    assert.deepEqual(await findings(other), [], name);
    assert.equal(await other.evaluate(() => document.documentElement.scrollWidth), options.viewport?.width ?? 1360);
    await picture(other, name);
    await other.context().close();
  }
});

test("the console stayed silent", () => {
  const unexpected = page.complaints.filter((text) => !/status of 400/.test(text));
  assert.deepEqual(unexpected, []);
});
