// Compiles the client project with the three real compilers, each into its own kind of manifest. The schema comes from
// the running server, as a client's build would get it: the one for client tools, which every compiler takes as it is.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, cp, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { scratch } from "../processes.mjs";
import { endpoint } from "./xp.mjs";

const run = promisify(execFile);
/** The scalars of the schema beside GraphQL's own, as a client's code has them. */
const SCALARS = { DateTime: "string", JSON: "unknown" };
const here = import.meta.dirname;

/** Compiles in a folder of its own; the texts of the manifests by the name of their compiler. */
export async function compile() {
  const folder = scratch("client");
  await cp(join(here, "project"), folder, { recursive: true });
  await symlink(join(here, "node_modules"), join(folder, "node_modules"));
  await mkdir(join(folder, "src", "__generated__"));
  await writeFile(join(folder, "schema.graphql"), await schema());
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  await Promise.all([apollo(folder), relay(folder), codegen(folder)]);
  const text = (name) => readFile(join(folder, name), "utf8");
  return {
    apollo: await text("apollo.json"),
    relay: await text("relay.json"),
    codegen: await text("generated/persisted-documents.json"),
  };
}

/** What `/schema.graphql?api` has. */
export async function schema() {
  const response = await fetch(new URL("/schema.graphql?api", endpoint));
  assert.equal(response.status, 200);
  return response.text();
}

const tool = (folder, name, ...args) => run(join(here, "node_modules", ".bin", name), args, { cwd: folder });

async function apollo(folder) {
  const config = { documents: ["src/*.ts"], output: "apollo.json" };
  await writeFile(join(folder, "persisted-query-manifest.config.json"), JSON.stringify(config));
  await tool(folder, "generate-persisted-query-manifest");
}

async function relay(folder) {
  const config = {
    src: "./src",
    language: "typescript",
    schema: "./schema.graphql",
    artifactDirectory: "./src/__generated__",
    persistConfig: { file: "./relay.json", algorithm: "MD5" },
  };
  await writeFile(join(folder, "relay.json"), "{}");
  await writeFile(join(folder, "relay.config.json"), JSON.stringify(config));
  await tool(folder, "relay-compiler", "relay.config.json");
}

async function codegen(folder) {
  const config = {
    schema: "schema.graphql",
    documents: ["src/*.ts"],
    generates: {
      "./generated/": {
        preset: "client",
        presetConfig: { persistedDocuments: { hashAlgorithm: "sha256" } },
        // Every scalar has to be known: one that is for gateways only would stop the compiler.
        config: { gqlTagName: "graphql", strictScalars: true, scalars: SCALARS },
      },
    },
    pluckConfig: { globalGqlIdentifierName: ["graphql"] },
  };
  await writeFile(join(folder, "codegen.json"), JSON.stringify(config));
  await tool(folder, "graphql-codegen", "--config", "codegen.json");
}

if (process.argv[1] === import.meta.filename) {
  for (const [name, text] of Object.entries(await compile())) console.log(name, text);
}
