// What clients in JavaScript say of the same answers and rules: Ajv by a version's JSON Schema, json-logic-engine's `run`
// by its rules. The cases, with the server's verdicts, are made by `cargo test -p entities --test conformance`; XP_CASES names
// their folder.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import Ajv2020 from "ajv/dist/2020.js";
import { LogicEngine } from "json-logic-engine";

const folder = process.env.XP_CASES ?? join(import.meta.dirname, "../../target/tmp");
const cases = (name) => readFileSync(join(folder, name), "utf8").split("\n").map((line) => JSON.parse(line));

test("10,000 answers have the verdict that the server gave", () => {
  const ajv = new Ajv2020({ strict: false, logger: false });
  const differences = [];
  let count = 0;
  for (const { schema, pairs } of cases("pairs.ndjson")) {
    const validate = ajv.compile(schema);
    for (const { data, valid } of pairs) {
      count += 1;
      if (validate(tidyEntry(data)) !== valid) differences.push({ data, valid, errors: validate.errors, schema });
    }
  }
  assert.equal(count, 10_000);
  assert.deepEqual(differences, []);
});

// What a client does before it checks answers or evaluates rules; docs/forms.md says it in words.
const SPACE = "[\\s\\x85\\u200b\\u2060\\ufeff]";
const AROUND = new RegExp(`^${SPACE}+|${SPACE}+$`, "gu");

function tidy(value) {
  if (value === null) return undefined;
  if (typeof value === "string") return value.replace(AROUND, "").normalize("NFC") || undefined;
  if (Array.isArray(value)) {
    const isBlank = (entry) => tidy(entry) === undefined && (entry === null || typeof entry !== "object" || Array.isArray(entry));
    return value.every(isBlank) ? undefined : value.map(tidyEntry);
  }
  if (typeof value !== "object") return value;
  const object = tidyEntry(value);
  return Object.keys(object).length > 0 ? object : undefined;
}

// An entry of a list keeps its place.
function tidyEntry(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return tidy(value) ?? (value === null ? null : "");
  return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, tidy(member)]).filter(([, member]) => member !== undefined));
}

// An engine evaluates what it has seen seldom in an optimised way, and what it has seen a few hundred rules later in
// another. Clients meet both.
const engines = {
  first: () => new LogicEngine(),
  later: () => new LogicEngine(undefined, { disableInterpretedOptimization: true }),
};

for (const [file, least] of [["operators", 20_000], ["lists", 5_000], ["nested", 4_000]]) {
  test(`rules have the value that the server gave: ${file}`, () => {
    const [{ states, values: given, refused }, ...rules] = cases(`${file}.ndjson`);
    const differences = [];
    let count = 0;
    for (const { rule, values } of rules) {
      states.forEach((data, state) => {
        count += 1;
        for (const [engine, make] of Object.entries(engines)) {
          const theirs = run(make(), rule, data);
          if (!Object.is(theirs, values[state])) {
            differences.push({ engine, rule: JSON.stringify(rule), data: JSON.stringify(data), ours: values[state], theirs });
          }
        }
      });
    }
    assert.ok(count >= least, `${count} results`);
    console.log(`${file}: ${count} results, ${given} of them values, ${differences.length} differences; ${refused} rules refused`);
    assert.equal(differences.length, 0, JSON.stringify(differences.slice(0, 20), null, 2));
  });
}

// As the server takes a result: what fails, and what is no plain value, is null; there is no -0.
function run(engine, rule, data) {
  let value;
  try {
    value = engine.run(rule, data);
  } catch {
    return null;
  }
  if (typeof value === "number") return Number.isFinite(value) ? value + 0 : null;
  return typeof value === "string" || typeof value === "boolean" ? value : null;
}
