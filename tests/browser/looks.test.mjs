// How each part of the page looks: on a desktop, in the dark, on a phone. Of each a picture is taken (XP_SCREENSHOTS), axe finds
// nothing serious, and nothing sticks out. And all of it by the keyboard alone. Not here: what the parts do.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  answered,
  choose,
  findings,
  hasFocus,
  isStill,
  launch,
  model,
  open,
  pickByLetter,
  picture,
  run,
} from "./page.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true };
let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** Opens each part of the page, and closes it again. */
const PARTS = {
  examples: {
    open: (page) => page.getByRole("button", { name: "Examples" }).click(),
    shows: (page) => page.getByRole("menuitem", { name: "W2" }),
    close: (page) => page.keyboard.press("Escape"),
  },
  explain: {
    open: async (page) => {
      await page.getByRole("switch", { name: "Explain" }).click();
      await choose(page, "W2");
    },
    shows: (page) => page.getByRole("region", { name: "Explain", exact: true }).locator(".xp-row-batch").first(),
    close: () => {},
  },
  table: {
    open: (page) => page.getByRole("button", { name: "Table" }).click(),
    shows: (page) => page.getByRole("rowheader", { name: "user.page" }).first(),
    close: (page) => page.getByRole("button", { name: "Waterfall" }).click(),
  },
  copy: {
    open: (page) => page.getByRole("button", { name: "Copy", exact: true }).click(),
    shows: (page) => page.getByRole("menuitem", { name: "Link to this operation" }),
    close: (page) => page.keyboard.press("Escape"),
  },
  schema: {
    open: (page) => page.getByRole("button", { name: "Schema", exact: true }).click(),
    shows: (page) => page.getByRole("dialog", { name: "Schema" }).locator(".xp-box").first(),
    close: (page) => page.getByRole("dialog", { name: "Schema" }).getByRole("button", { name: "Close" }).click(),
  },
  "sign-in": {
    open: (page) => page.getByRole("button", { name: "Sign in", exact: true }).click(),
    shows: (page) => page.getByRole("dialog", { name: "Sign in" }),
    close: (page) => page.getByRole("dialog", { name: "Sign in" }).getByRole("button", { name: "Close" }).click(),
  },
  operations: {
    open: (page) => page.getByRole("button", { name: "Show Operations" }).click(),
    shows: (page) => page.getByRole("heading", { name: "Published on this server" }),
    close: (page) => page.getByRole("button", { name: "Hide Operations" }).click(),
  },
  documentation: {
    open: (page) => page.getByRole("button", { name: "Show Documentation Explorer" }).click(),
    shows: (page) => page.locator(".graphiql-doc-explorer").getByRole("link", { name: "Query", exact: true }),
    close: (page) => page.getByRole("button", { name: "Hide Documentation Explorer" }).click(),
  },
  events: {
    open: async (page) => {
      await choose(page, "Live: positions");
      await page.getByRole("status").getByText("Press the run button to listen").waitFor();
      await run(page);
    },
    shows: (page) => page.getByRole("region", { name: "Events" }).getByText("Listening"),
    close: run,
  },
};

for (const [name, options] of Object.entries({ desktop: {}, dark: { colorScheme: "dark" }, phone: PHONE })) {
  test(`each part can be seen and read, ${name}`, async () => {
    const page = await open(browser, options);
    const width = page.viewportSize().width;
    for (const [part, { open, shows, close }] of Object.entries(PARTS)) {
      await open(page);
      await shows(page).waitFor();
      await isStill(page);
      await picture(page, `${part}-${name}`);
      assert.deepEqual(await findings(page), [], part);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `${part} sticks out`);
      const { x, y, width: own } = await shows(page).boundingBox();
      assert.ok(x >= 0 && y >= 0 && x < width && own > 0, `${part} lies outside`);
      await close(page);
    }
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  });
}

test("on a phone an open panel has room for its rows, and lies on nothing else", async () => {
  const page = await open(browser, PHONE);
  await page.getByRole("switch", { name: "Explain" }).tap();
  await choose(page, "W2");
  const panel = page.locator(".xp-panel");
  await panel.locator(".xp-row-batch").first().waitFor();
  await isStill(page);
  const [editors, box] = [await page.locator(".graphiql-editors").boundingBox(), await panel.boundingBox()];
  assert.ok(box.height > 300, `${box.height} px high`);
  assert.ok(editors.height > 120 && editors.y + editors.height <= box.y, JSON.stringify({ editors, box }));
  // Where the two meet, nothing of the editor lies on the answer.
  const above = await page.evaluate(
    ([x, y]) => Boolean(document.elementFromPoint(x, y).closest(".graphiql-editors")),
    [editors.x + 60, editors.y + editors.height + 8],
  );
  assert.equal(above, false);
  await page.context().close();
});

test("by the keyboard alone an example is run, explained, and copied", async () => {
  const page = await open(browser, { permissions: ["clipboard-read", "clipboard-write"] });
  /** Goes on by Tab until this has the focus. */
  const reach = async (target, key = "Tab") => {
    for (let steps = 0; steps < 80; steps += 1) {
      if (await target.evaluate((one) => one === document.activeElement).catch(() => false)) return;
      await page.keyboard.press(key);
    }
    assert.fail(`the focus does not come to ${target}`);
  };
  const isSeen = (target) => target.evaluate((one) => getComputedStyle(one).outlineStyle !== "none");
  const explain = page.getByRole("switch", { name: "Explain" });
  const examples = page.getByRole("button", { name: "Examples" });
  await page.locator("body").evaluate(() => document.activeElement.blur());
  await reach(examples);
  assert.ok(await isSeen(examples));
  const sent = answered(page, "# W1");
  await pickByLetter(page, "W1");
  assert.ok((await sent).data);
  // Until the answer is shown, the run button stops.
  await page.locator(".xp-facts").getByText("200", { exact: true }).waitFor();

  // Out of the editor, where Tab indents.
  await explain.focus();
  assert.ok(await isSeen(explain));
  await page.keyboard.press("Space");
  await explain.and(page.locator("[aria-checked=true]")).waitFor();
  const again = answered(page, "# W1");
  await page.keyboard.press("Shift+Tab");
  await hasFocus(page, page.locator(".graphiql-execute-button"));
  await page.keyboard.press("Enter");
  assert.ok((await again).extensions.explain);
  const row = page.locator("button.xp-row-head").or(page.getByRole("button", { name: "Table" })).first();
  await row.waitFor();
  await row.focus();
  assert.ok(await isSeen(row));

  const copy = page.getByRole("button", { name: "Copy", exact: true });
  await copy.focus();
  // It goes after some seconds, so it is waited for from before.
  const noted = page.getByText("Copied").waitFor();
  await pickByLetter(page, "Id of the document");
  await noted;
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^sha256:[0-9a-f]{64}$/);
  assert.match(await model(page, "operation.graphql"), /^# W1/);
  // The focus comes back to where it was.
  await hasFocus(page, copy);
  await page.context().close();
});
