// For 10,000 generated documents with variables the verdict of graphql-js, in kind, and for half as many its answers
// (`language/`). XP_LANGUAGE_COUNT and XP_LANGUAGE_SEED ask for more, or for others.
import assert from "node:assert/strict";
import { test } from "node:test";
import { compareAnswers } from "./language/answers.mjs";
import { DIFFERENCES, SCHEMAS, compare } from "./language/compare.mjs";

const count = Number(process.env.XP_LANGUAGE_COUNT ?? 10_000);
const seed = Number(process.env.XP_LANGUAGE_SEED ?? 1);

for (const schema of Object.keys(SCHEMAS)) {
  test(`documents for the schema "${schema}" get the verdict of graphql-js`, async (t) => {
    const run = await compare({ schema, count: Math.ceil(count / 2), seed });
    t.diagnostic(`${run.count} documents from seed ${seed}: ${JSON.stringify(run.counts)}`);
    for (const { name, reason } of DIFFERENCES) {
      if (run.named[name]) t.diagnostic(`${run.named[name]} differ as meant, ${name}: ${reason}`);
    }
    for (const kind of ["ok", "syntax", "validation", "coercion"]) {
      assert.ok(run.counts[kind] > run.count / 100, `too few of the kind "${kind}" to prove anything`);
    }
    assert.deepEqual(run.differences.slice(0, 3), [], `${run.differences.length} differences`);
  });
}

test("answers are those of graphql-js, with the places of errors and what null does", async (t) => {
  const run = await compareAnswers({ count: Math.ceil(count / 2), seed });
  t.diagnostic(`${run.count} answers from seed ${seed}, ${run.failed} of them with errors`);
  assert.ok(run.failed > run.count / 10 && run.failed < run.count, "some fail, some do not");
  assert.deepEqual(run.differences.slice(0, 3), [], `${run.differences.length} differences`);
});
