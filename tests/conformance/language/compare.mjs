// Our verdicts beside those of graphql-js: `node language/compare.mjs [count] [seed]` prints the counts of each kind and
// every difference that has no name. XP_JUDGE is the program `judge` (schema/engine/examples/judge.rs).
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Generator } from "./generate.mjs";
import { judge, schemaOf } from "./reference.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** The schemas that documents are generated for: one that has everything, and that of the server. */
export const SCHEMAS = { language: here("./schema.graphql"), api: here("../../../schema/api.graphql") };

/** Differences that are meant, each with its reason. */
export const DIFFERENCES = [
  {
    name: "type definitions",
    reason: "definitions of types are no part of what can be executed; graphql-js reads them and then refuses them",
    is: (theirs, ours) => theirs.kind === "validation" && / definition is not executable\.$/.test(theirs.message) && ours.kind === "syntax",
  },
  {
    name: "nullable variables in @oneOf",
    reason: "section 5.8.5 wants them non-null; graphql-js looks only where the @oneOf type itself stands in no `!` and in no list",
    is: (theirs, ours) => theirs.kind !== "validation" && ours.kind === "validation" && /must be non-nullable to be used for OneOf/.test(ours.message),
  },
];

/** Runs `count` documents from `seed` on; the counts of verdicts and the differences. */
export async function compare({ schema: name, count, seed, program = process.env.XP_JUDGE }) {
  const path = SCHEMAS[name];
  const schema = schemaOf(readFileSync(path, "utf8"));
  const process_ = spawn(program, [path], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve, reject) => {
    process_.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`judge ended with ${code}`))));
    process_.on("error", reject);
  });
  const cases = [];
  const counts = {};
  const named = {};
  const differences = [];
  const reading = (async () => {
    let index = 0;
    for await (const line of createInterface({ input: process_.stdout })) {
      const { request, theirs, seed: of } = cases[index];
      cases[index] = undefined;
      index += 1;
      const ours = JSON.parse(line);
      counts[theirs.kind] = (counts[theirs.kind] ?? 0) + 1;
      if (ours.kind === theirs.kind) continue;
      const meant = DIFFERENCES.find((difference) => difference.is(theirs, ours, request));
      if (meant) named[meant.name] = (named[meant.name] ?? 0) + 1;
      else differences.push({ schema: name, seed: of, theirs, ours, request });
    }
  })();
  for (let index = 0; index < count; index += 1) {
    const request = new Generator(schema, seed + index).document();
    cases.push({ request, theirs: judge(schema, request), seed: seed + index });
    if (!process_.stdin.write(`${JSON.stringify(request)}\n`)) {
      await new Promise((resolve) => process_.stdin.once("drain", resolve));
    }
  }
  process_.stdin.end();
  await Promise.all([reading, ended]);
  return { schema: name, count, seed, counts, named, differences };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [count = "100000", seed = "1"] = process.argv.slice(2);
  let failed = 0;
  for (const schema of Object.keys(SCHEMAS)) {
    const run = await compare({ schema, count: Math.ceil(Number(count) / 2), seed: Number(seed) });
    failed += run.differences.length;
    process.stdout.write(`${JSON.stringify({ ...run, differences: run.differences.length })}\n`);
    for (const difference of run.differences.slice(0, Number(process.env.XP_SHOWN ?? 10))) {
      process.stdout.write(`${JSON.stringify(difference, undefined, 1)}\n`);
    }
  }
  process.exitCode = failed === 0 ? 0 : 1;
}
