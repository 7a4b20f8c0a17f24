// Compiles the documents of all apps with their own tools, against the schema for clients, and lays what a server has to publish
// into published/: give that folder to it as `documents.path`.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { addTypenameSelectionDocumentTransform } from "@graphql-codegen/client-preset";
import { generate } from "@graphql-codegen/cli";
import { parse, print } from "graphql";

const ROOT = join(import.meta.dirname, "..");
const SCHEMA = join(ROOT, "../../schema/api.graphql");
process.chdir(ROOT);
for (const folder of ["generated", "published", "relay/__generated__"]) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
}

session();
await codegen();
tool("generate-persisted-query-manifest");
writeFileSync("generated/relay.json", "{}");
tool("relay-compiler", "relay.config.json");
copyFileSync("generated/apollo.json", "published/apollo.json");
copyFileSync("generated/relay.json", "published/relay.json");
copyFileSync("generated/urql/persisted-documents.json", "published/urql.json");
copyFileSync("generated/fetch/persisted-documents.json", "published/fetch.json");

function tool(name, ...args) {
  execFileSync(join(ROOT, "node_modules/.bin", name), args, { stdio: "inherit" });
}

/** The mutations of the session are sent without a library: their ids are the hashes of their texts. */
function session() {
  const documents = {};
  const published = {};
  for (const operation of parse(readFileSync("shared/session.graphql", "utf8")).definitions) {
    const text = print(operation);
    const hash = createHash("sha256").update(text).digest("hex");
    documents[operation.name.value] = { id: `sha256:${hash}` };
    published[hash] = text;
  }
  writeFileSync("generated/session.json", JSON.stringify(documents));
  writeFileSync("published/session.json", JSON.stringify(published));
}

/** The same operations for two clients: urql takes documents with `__typename`, the other one strings. */
async function codegen() {
  const target = (config, documentTransforms) => ({
    preset: "client",
    presetConfig: { persistedDocuments: { hashAlgorithm: "sha256" }, fragmentMasking: false },
    config: { scalars: { DateTime: "string", JSON: "unknown" }, strictScalars: true, ...config },
    documentTransforms,
  });
  await generate(
    {
      schema: SCHEMA,
      documents: ["shared/operations.graphql"],
      silent: true,
      generates: {
        "generated/urql/": target({}, [addTypenameSelectionDocumentTransform]),
        "generated/fetch/": target({ documentMode: "string" }, []),
      },
    },
    true,
  );
}
