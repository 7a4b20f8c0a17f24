// The licence text of every package whose code is in the bundle. Which packages those are comes from the bundler, not
// from package.json: workers and CSS count, unused dependencies don't. Fonts are no modules of the bundler: they are the dependencies of @fontsource.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** @param root the folder of node_modules  @param modules ids of all bundled modules */
export function licences(root, modules) {
  const names = new Set();
  for (const id of modules) {
    const inside = /^.*\/node_modules\/((?:@[^/]+\/)?[^/?]+)\//.exec(id);
    if (inside && !inside[1].startsWith(".")) names.add(inside[1]);
  }
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) if (name.startsWith("@fontsource/")) names.add(name);
  const parts = [...names].sort().map((name) => describe(join(root, "node_modules", name), name));
  return [
    "The XP Graph playground contains code of the packages below, each under its own licence.\n",
    ...parts,
  ].join("\n");
}

function describe(folder, name) {
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const texts = readdirSync(folder)
    .filter((file) => /^(licen[cs]e|notice|thirdpartynotices)(\.|-|$)/i.test(file))
    .sort()
    .map((file) => readFileSync(join(folder, file), "utf8").replaceAll("\r\n", "\n").trim());
  return [`${"=".repeat(80)}\n${name} ${version} (${license})\n`, ...texts, ""].join("\n");
}
