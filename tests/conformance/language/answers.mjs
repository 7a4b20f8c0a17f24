// Our answers beside those of graphql-js. XP_ANSWERS is the program `answers` (schema/engine/examples/answers.rs).
import { execFileSync } from "node:child_process";
import { answer, difference, domainOf, question } from "./domain.mjs";

/** Answers `count` questions from `seed` on, on both sides. */
export async function compareAnswers({ count, seed, program = process.env.XP_ANSWERS }) {
  const schema = domainOf(execFileSync(program, ["--sdl"], { encoding: "utf8" }));
  const questions = Array.from({ length: count }, (_, index) => question(seed + index));
  const input = questions.map((question) => `${JSON.stringify(question)}\n`).join("");
  const lines = execFileSync(program, [], { input, encoding: "utf8", maxBuffer: 1 << 30 }).trimEnd().split("\n");
  const differences = [];
  let failed = 0;
  for (const [index, line] of lines.entries()) {
    const ours = JSON.parse(line);
    const theirs = JSON.parse(JSON.stringify(await answer(schema, questions[index])));
    failed += theirs.errors ? 1 : 0;
    const why = difference(ours, theirs);
    if (why) differences.push({ why, seed: seed + index, question: questions[index], ours, theirs });
  }
  return { count: lines.length, failed, differences };
}
