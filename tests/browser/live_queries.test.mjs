// Live queries in a real browser: the answer is shown again when it changes, what has changed is marked in it for a moment and told in
// words, and the log of answers can be held and ended. Not here: what becomes of a connection that is lost (`live`).
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { changesBetween, inWords } from "../../playground/src/changes.js";
import { accounts, choose, eventually, findings, holds, launch, model, open, picture, post, run, write } from "./page.mjs";

let browser, page, admin, form;

before(async () => {
  [{ token: admin }] = await accounts();
  const definition = { schema: 1, fields: [{ key: "number", type: "INTEGER", label: "Number" }] };
  const create = 'mutation($d: JSON!) { createForm(input: { title: "Counted", definition: $d }) { form { id } } }';
  form = (await post(create, { d: definition }, admin)).data.createForm.form.id;
  await post("mutation($id: ID!) { publishForm(input: { id: $id, baseRevision: 1 }) { form { id } } }", { id: form }, admin);
  browser = await launch();
  page = await open(browser);
});
after(() => browser?.close());

const QUERY = `query Counted($id: ID!) @live(throttle: 50) {
  form(id: $id) { id title submissionCount submissions(first: 3) { nodes { id data } } }
}`;
const log = (of) => of.getByRole("region", { name: "Answers" });
const state = (of, text) => log(of).getByRole("status").getByText(text).waitFor();
const marked = (of) => of.locator(".graphiql-response .monaco-editor .xp-changed");

async function submit(number) {
  const query = "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } } }";
  const { data } = await post(query, { input: { formId: form, data: { number } } }, admin);
  return data.createSubmission.submission.id;
}

async function rename(title) {
  const query = "mutation($id: ID!, $title: String!) { updateForm(input: { id: $id, title: $title }) { form { title } } }";
  assert.equal((await post(query, { id: form, title }, admin)).data.updateForm.form.title, title);
}

/** Keeps what the page shows and tells at each of its changes: marks are there for two seconds only. */
async function record(of) {
  await of.evaluate(() => {
    globalThis.recorded = { told: new Set(), marks: 0, animations: new Set() };
    const look = () => {
      for (const { textContent } of document.querySelectorAll(".xp-footer > [role=status]")) if (textContent) globalThis.recorded.told.add(textContent);
      const marks = [...document.querySelectorAll(".xp-changed")];
      globalThis.recorded.marks = Math.max(globalThis.recorded.marks, marks.length);
      for (const mark of marks) globalThis.recorded.animations.add(getComputedStyle(mark).animationName);
    };
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
}

const recorded = (of) =>
  of.evaluate(() => {
    const { told, marks, animations } = globalThis.recorded;
    return { told: [...told], marks, animations: [...animations] };
  });

test("each change is shown, marked for a moment, and told in words", async () => {
  await write(page, QUERY, JSON.stringify({ id: form }));
  await run(page);
  await state(page, "Listening");
  await holds(page, "response.json", '"submissionCount": 0');
  await record(page);
  await rename("Counted anew");
  await holds(page, "response.json", '"title": "Counted anew"');
  await eventually(page, async () => (await recorded(page)).marks > 0);
  const first = await recorded(page);
  assert.deepEqual(first.told, ["1 value changed"]);
  assert.equal(first.marks, 1);
  assert.deepEqual(first.animations, ["xp-changed-fades"]);

  const id = await submit(7);
  await holds(page, "response.json", id);
  await eventually(page, async () => (await recorded(page)).marks > 1);
  await picture(page, "live-query-changed");
  // The count, and the two values of the new one.
  await log(page).getByText(/3 values changed/).first().waitFor();
  assert.deepEqual((await recorded(page)).told, ["1 value changed", "3 values changed"]);
  await marked(page).first().waitFor({ state: "detached" });
  await picture(page, "live-query-later");
  assert.deepEqual(await findings(page), []);
  assert.deepEqual(JSON.parse(await model(page, "response.json")).data.form.submissionCount, 1);
});

test("the log of answers is held, goes on, and ends with the query", async () => {
  const answers = () => log(page).getByRole("listitem").count();
  const before = await answers();
  await log(page).getByRole("button", { name: "Pause" }).click();
  await submit(8);
  await log(page).getByRole("status").getByText("1 waiting").waitFor();
  assert.equal(await answers(), before);
  await log(page).getByRole("button", { name: "Pause" }).click();
  await eventually(page, async () => (await answers()) === before + 1);
  await log(page).locator("summary").first().click();
  assert.match(await log(page).locator("details mark").first().innerText(), /submissionCount|id|nodes|\{/);
  await run(page);
  await state(page, "Ended");
  await submit(9);
  await page.waitForTimeout(1_000);
  assert.equal(JSON.parse(await model(page, "response.json")).data.form.submissionCount, 2);
  assert.deepEqual(page.complaints, []);
});

test("who wants no motion sees marks that do not fade", async () => {
  const still = await open(browser, { reducedMotion: "reduce" });
  await write(still, QUERY, JSON.stringify({ id: form }));
  await run(still);
  await state(still, "Listening");
  await holds(still, "response.json", '"title"');
  await record(still);
  await rename("Without motion");
  await eventually(still, async () => (await recorded(still)).marks > 0);
  const { animations, told } = await recorded(still);
  assert.deepEqual([animations, told], [["none"], ["1 value changed"]]);
  await picture(still, "live-query-without-motion");
  await marked(still).first().waitFor({ state: "detached" });
  await still.context().close();
});

test("the example of a live query waits for the run button, and is not sent over HTTP", async () => {
  const sent = [];
  page.on("request", (request) => sent.push(request.postData() ?? ""));
  await choose(page, "Live: a form and its newest submissions");
  await page.getByRole("status").getByText("Press the run button to listen").waitFor();
  await run(page);
  await state(page, "Listening");
  await holds(page, "response.json", '"submissionCount"');
  assert.ok(!sent.some((body) => body.includes("@live")), JSON.stringify(sent));
  await run(page);
  await state(page, "Ended");
});

test("the changes of an answer are those of its values, whatever stands in front of them", () => {
  const rows = (...ids) => ids.map((id) => ({ id, n: 1 }));
  const cases = [
    [{ a: 1, b: [] }, { a: 1, b: [] }, [], "nothing changed"],
    [{ a: 1, b: 2 }, { a: 1, b: 3 }, ['"b": 3'], "1 value changed"],
    [{ list: rows("x", "y") }, { list: rows("w", "x", "y") }, ["{", '"id": "w",', '"n": 1', "},"], "2 values changed"],
    // A page that is full: one comes, one goes.
    [{ list: rows("x", "y") }, { list: rows("w", "x") }, ["{", '"id": "w",', '"n": 1', "},"], "2 values changed, 2 removed"],
    [{ list: rows("x", "y") }, { list: rows("x") }, [], "2 values removed"],
    [{ list: rows("x") }, { list: [] }, ['"list": []'], "2 values removed"],
    [{ list: [1, 2, 3] }, { list: [1, 4, 3] }, ["4,"], "1 value changed"],
    [{ list: [{ n: 1, m: 1 }] }, { list: [{ n: 2, m: 1 }] }, ['"n": 2,'], "1 value changed"],
    [{ a: null }, { a: { b: 1, c: [1, 2] } }, ['"a": {', '"b": 1,', '"c": [', "1,", "2", "]", "}"], "3 values changed"],
    [{ a: { b: 1 } }, { a: null }, ['"a": null'], "1 value changed"],
    [{ data: { a: 1 } }, { errors: [{ message: "no" }], data: null }, ['"errors": [', "{", '"message": "no"', "}", "],", '"data": null'], "2 values changed"],
  ];
  for (const [before, after, lines, words] of cases) {
    const found = changesBetween(before, after);
    const text = JSON.stringify(after, null, 2).split("\n");
    assert.deepEqual(found.lines.map((line) => text[line - 1].trim()), lines, JSON.stringify([before, after]));
    assert.equal(inWords(found), words, JSON.stringify([before, after]));
  }
});
