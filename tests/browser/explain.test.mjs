// The explain panel in a real browser: it draws what the server says of an answer, all of it and nothing else, for queries,
// mutations and events; a statement shows its text and its plan. Not here: whether what the server says is right.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  accounts,
  answered,
  choose,
  eventually,
  fillIn,
  findings,
  isReady,
  launch,
  model,
  open,
  picture,
  post,
  repeatUntil,
  run,
  runExample,
  url,
  write,
} from "./page.mjs";

let browser, page, people;

before(async () => {
  people = await accounts();
  browser = await launch();
  page = await open(browser);
});
after(() => browser?.close());

const panel = () => page.getByRole("region", { name: "Explain", exact: true });
const explainSwitch = () => page.getByRole("switch", { name: "Explain" });

/** What stands in the figures above the rows. */
async function figures() {
  const names = await panel().locator(".xp-totals dt").allInnerTexts();
  const values = await panel().locator(".xp-totals dd").allInnerTexts();
  return Object.fromEntries(names.map((name, index) => [name, values[index]]));
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

test("without the switch nothing is asked of the server, and no panel is there", async () => {
  const { extensions } = await runExample(page, "A first query");
  assert.equal(extensions, undefined);
  assert.equal(await explainSwitch().getAttribute("aria-checked"), "false");
  assert.equal(await panel().count(), 0);
});

test("the panel shows each level, batch and statement that the answer lists, and no more", async () => {
  await explainSwitch().click();
  const { extensions } = await runExample(page, "W2");
  const { explain } = extensions;
  await panel().waitFor();
  const hits = sum(explain.cache.map(({ keys }) => keys.hit ?? 0));
  const asked = sum(explain.cache.filter(({ tier }) => tier === "local").flatMap(({ keys }) => Object.values(keys)));
  const shown = await figures();
  assert.equal(shown.Statements, String(explain.sql.length));
  assert.equal(shown.Rows, String(sum(explain.sql.map(({ rows }) => rows))));
  assert.equal(shown["Cache hits"], `${hits} of ${asked}`);
  assert.equal(shown.Deduplicated, String(explain.deduplicated));
  assert.equal(shown.Cost, `${explain.cost} of ${explain.maxCost}`);
  const rows = (kind) => panel().locator(`.xp-row-${kind} .xp-row-label`).allInnerTexts();
  assert.deepEqual((await rows("batch")).sort(), explain.batches.map(({ loader }) => loader).sort());
  assert.deepEqual((await rows("statement")).sort(), explain.sql.map(({ name }) => name).sort());
  assert.equal((await rows("level")).length, new Set(explain.batches.map(({ level }) => level)).size);
  const details = await panel().locator(".xp-row-batch .xp-row-detail").allInnerTexts();
  for (const { keys, found } of explain.batches) {
    assert.ok(details.some((detail) => detail.startsWith(`${keys} ${keys === 1 ? "key" : "keys"}, ${found} found`)), `${keys} keys`);
  }
  const waited = details.map((detail) => /after ([^·]+?)(?: · |$)/.exec(detail)?.[1] ?? "").sort();
  const names = ({ after = [] }) => after.map((place) => explain.batches[place].loader).join(", ");
  assert.deepEqual(waited, explain.batches.map(names).sort(), "each says which batches it waited for");
  assert.ok(waited.includes("user.page"), waited);
  assert.doesNotMatch(await model(page, "response.json"), /"explain"/, "the answer is shown without it");
  await picture(page, "explain-desktop");
});

test("a batch that waited for other requests says so, and how long is drawn", async () => {
  await page.route("**/graphql", async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    const batch = answer.extensions?.explain?.batches.find(({ loader }) => loader === "user.page");
    // On a server that has nothing else to do no batch waits.
    if (batch) Object.assign(batch, { requests: 3, queuedMs: batch.ms / 2 });
    await route.fulfill({ response, json: answer });
  });
  await runExample(page, "W2");
  const row = panel().locator(".xp-row-batch").filter({ has: page.getByText("user.page", { exact: true }) });
  await row.getByText(/waited [\d.]+ ms for other requests · read together with 2 other requests/).waitFor();
  const [whole, waiting] = await Promise.all(
    [row.locator(".xp-span").first(), row.locator(".xp-span-waiting")].map((span) => span.evaluate(({ style }) => parseFloat(style.width))),
  );
  assert.ok(Math.abs(waiting - whole / 2) < 0.01, `${waiting} of ${whole}`);
  await picture(page, "explain-waited");
  await panel().getByRole("button", { name: "Table" }).click();
  await panel().getByRole("cell", { name: /for other requests; read together with 2/ }).waitFor();
  await panel().getByRole("button", { name: "Waterfall" }).click();
  await page.unroute("**/graphql");
});

test("pointing at a statement shows its text, and pressing it its plan", async () => {
  const { extensions } = await runExample(page, "W4");
  const [first] = extensions.explain.sql;
  const row = panel().getByRole("button", { name: first.name }).first();
  const statement = panel().getByRole("region", { name: `Statement ${first.name}` });
  // The panel of the answer before may still be there when the pointer comes; it goes with what was pointed at.
  await eventually(page, async () => {
    await page.mouse.move(0, 0);
    await row.hover();
    return statement.locator("pre").first().waitFor({ timeout: 2_000 }).then(() => true, () => false);
  });
  assert.equal((await statement.locator("pre").first().innerText()).replaceAll("\n", " "), first.text);
  await row.focus();
  await page.keyboard.press("Enter");
  await statement.getByRole("heading", { name: "Plan" }).waitFor();
  const plan = statement.locator(".xp-plan");
  await plan.getByText(/SCAN|SEARCH|Scan/).waitFor();
  // It is in sight, however long the text of the statement is.
  await eventually(page, async () => {
    const [frame, inner] = [await statement.boundingBox(), await plan.boundingBox()];
    return inner.y >= frame.y && inner.y + 20 <= frame.y + frame.height;
  });
  await picture(page, "explain-plan");
  await page.keyboard.press("Enter");
  await statement.locator(".xp-plan").waitFor({ state: "detached" });
});

test("only administrators get a plan", async () => {
  const viewer = people.find(({ role }) => role === "VIEWER");
  await page.getByRole("combobox", { name: "Account" }).selectOption(viewer.name);
  // A search that nobody has made before, so that the database is asked.
  const search = crypto.randomUUID();
  await write(page, `{ users(first: 3, filter: { search: "${search}" }) { nodes { id } } }`);
  const sent = answered(page, search);
  await run(page);
  assert.equal((await sent).extensions.explain.plans, undefined);
  await panel().locator("button.xp-row-head").first().click();
  await panel().getByText("Administrators get the plan").waitFor();
  assert.equal(await panel().locator(".xp-plan").count(), 0);
  await page.getByRole("combobox", { name: "Account" }).selectOption(people[0].name);
});

test("a document that was sent before is a known one", async () => {
  const name = `Once${Date.now()}`;
  await write(page, `query ${name} { me { id } }`);
  for (const [known, label] of [[false, "Parse and validate"], [true, "Known document"]]) {
    const sent = answered(page, name);
    await run(page);
    assert.equal((await sent).extensions.explain.document.known, known);
    await panel().locator(".xp-row-document").getByText(label).waitFor();
  }
});

test("the same can be read as a table", async () => {
  const { extensions } = await runExample(page, "W2");
  await panel().getByRole("button", { name: "Table" }).click();
  const table = panel().getByRole("table");
  const names = await table.getByRole("rowheader").allInnerTexts();
  for (const { loader } of extensions.explain.batches) assert.ok(names.includes(loader), loader);
  for (const { name } of extensions.explain.sql) assert.ok(names.includes(name), name);
  await picture(page, "explain-table");
  await panel().getByRole("button", { name: "Waterfall" }).click();
});

test("what a mutation writes is shown too, with the statements of no batch", async () => {
  await fillIn(page, "Record positions");
  const sent = answered(page, "# Record positions");
  await run(page);
  const { explain } = (await sent).extensions;
  await panel().waitFor();
  assert.ok(explain.sql.length >= 2, "it writes");
  const names = await panel().locator(".xp-row-statement .xp-row-label").allInnerTexts();
  assert.deepEqual([...names].sort(), explain.sql.map(({ name }) => name).sort());
  await picture(page, "explain-mutation");
});

test("each event of a subscription says how it was made", async () => {
  await choose(page, "Live: positions");
  await page.getByRole("status").getByText("Press the run button to listen").waitFor();
  await run(page);
  await page.locator(".xp-facts").getByText("Listening").waitFor();
  const query = "mutation($point: LocationPointInput!) { recordLocations(input: { points: [$point] }) { acceptedCount } }";
  // An account that no other file records positions of: an older one than its last is no event.
  const { token } = people.find(({ role }) => role === "EDITOR");
  let ahead = 60;
  await repeatUntil(page, panel(), async () => {
    ahead += 1;
    const point = { timestamp: new Date(Date.now() + ahead * 1_000).toISOString(), latitude: 47.5, longitude: 8 };
    assert.equal((await post(query, { point }, token)).data.recordLocations.acceptedCount, 1);
  });
  assert.ok(Number((await figures()).Statements) >= 0);
  assert.match((await figures()).Cost, /^\d+ of \d+$/);
  await run(page);
});

test("the switch is found as it was left, and axe finds nothing serious", async () => {
  await page.reload();
  await isReady(page);
  assert.equal(await explainSwitch().getAttribute("aria-checked"), "true");
  await runExample(page, "W2");
  await panel().waitFor();
  assert.deepEqual(await findings(page), []);
});

test("in the dark and on a phone the panel can be read", async () => {
  for (const [name, options] of [
    ["explain-dark", { colorScheme: "dark" }],
    ["explain-phone", { viewport: { width: 390, height: 844 }, hasTouch: true }],
  ]) {
    const other = await open(browser, options);
    await other.getByRole("switch", { name: "Explain" }).click();
    await choose(other, "W2");
    await other.getByRole("region", { name: "Explain", exact: true }).waitFor();
    assert.deepEqual(await findings(other), [], name);
    assert.equal(await other.evaluate(() => document.documentElement.scrollWidth), options.viewport?.width ?? 1360);
    await picture(other, name);
    await other.context().close();
  }
});

test("the console stayed silent", () => assert.deepEqual(page.complaints, [], url));
