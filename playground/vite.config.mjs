// How the page is bundled: where assets are served and what is swapped for something smaller.
// Compressing and listing the result is scripts/build.mjs.
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

/** What GraphiQL needs of the editor before there is one: places in texts, addresses, keys. In a file of their own, or the first
 * file would bring the editor's along. */
const PLACES =
  /monaco-editor\/esm\/vs\/(base\/common\/(uri|path|platform|process)|editor\/common\/(core\/(range|position)|standalone\/standaloneEnums)|nls)\.js/;

/** What asks for a file of ours. In a file of its own, or the editor's would name the page's and change whenever that does. */
const PRELOAD = /vite\/preload-helper/;

/** @param {Set<string>} bundled is filled with the ids of all modules whose code is in the result, workers too */
export const config = (bundled = new Set()) => ({
  base: "/playground/",
  publicDir: false,
  plugins: [smallerJson(), keysWithoutEditor(), listsOfVariables(), ownParts(), listModules(bundled)],
  resolve: { dedupe: ["graphql", "react", "react-dom"] },
  worker: { format: "es", plugins: () => [listModules(bundled)] },
  build: {
    target: "es2022",
    assetsDir: "",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    sourcemap: false,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 8192,
    // "use client" and the like: meant for React on a server, of which there is none.
    rolldownOptions: {
      checks: { moduleLevelDirective: false },
      onLog: dropDirectiveNotes,
      output: { codeSplitting: { groups: [{ name: "places", test: PLACES }, { name: "preload", test: PRELOAD }] } },
    },
  },
});

export default defineConfig(config());

function dropDirectiveNotes(level, log, handle) {
  if (log.code !== "MODULE_LEVEL_DIRECTIVE") handle(level, log);
}

/** GraphiQL formats JSON with prettier's JavaScript parser (1 MB): the JSON parser it has anyway does that too. */
function smallerJson() {
  const original = /async function formatJSONC\(content\) {[^]*?\n}\n/;
  const ours = `async function formatJSONC(content) {
    return applyEdits(content, format(content, undefined, { insertSpaces: true, tabSize: 2 }));
  }\n`;
  return {
    name: "xp:smaller-json",
    enforce: "pre",
    transform(code, id) {
      if (!id.endsWith("/@graphiql/react/dist/utility/jsonc.js")) return null;
      if (!original.test(code)) this.error("formatJSONC is not where it was: look at this plugin again");
      return `import { applyEdits, format } from "jsonc-parser";\n${code.replace(original, ours)}`;
    },
  };
}

/** For the names of four keys GraphiQL's first file would bring a good part of the editor, which comes later. */
function keysWithoutEditor() {
  const original = 'import { KeyMod } from "monaco-editor/esm/vs/editor/common/services/editorBaseApi.js";';
  const ours = "const KeyMod = { CtrlCmd: 2048, Shift: 1024, Alt: 512, WinCtrl: 256 };";
  return {
    name: "xp:keys-without-editor",
    enforce: "pre",
    transform(code, id) {
      if (!id.endsWith("/@graphiql/react/dist/utility/monaco-ssr.js")) return null;
      if (!code.includes(original)) this.error("KeyMod is not where it was: look at this plugin again");
      return code.replace(original, ours);
    },
  };
}

/** GraphiQL refuses variables that are a list, and marks one as wrong; the server runs an operation for each set in it. */
function listsOfVariables() {
  const changes = [
    {
      of: "/@graphiql/react/dist/stores/execution.js",
      original: "variables = tryParseJSONC(variableEditor?.getValue());",
      ours: "variables = parseVariables(variableEditor?.getValue());",
      name: "parseVariables",
    },
    {
      of: "/monaco-graphql/esm/languageFeatures.js",
      original: "schema: jsonSchema,",
      ours: "schema: schemaOfSets(jsonSchema),",
      name: "schemaOfSets",
    },
  ];
  const file = fileURLToPath(new URL("src/variables.js", import.meta.url));
  const used = new Set();
  return {
    name: "xp:lists-of-variables",
    enforce: "pre",
    transform(code, id) {
      const change = changes.find(({ of }) => id.endsWith(of));
      if (!change) return null;
      if (!code.includes(change.original)) this.error(`${change.of} is not what it was: look at this plugin again`);
      used.add(change);
      return `import { ${change.name} } from ${JSON.stringify(file)};\n${code.replace(change.original, change.ours)}`;
    },
    buildEnd(error) {
      const unused = changes.find((change) => !used.has(change));
      if (!error && unused) this.error(`${unused.of} is not bundled any more: look at this plugin again`);
    },
  };
}

/** Parts of GraphiQL's first file that are ours instead: what is in `src` comes later, or is smaller. */
function ownParts() {
  const parts = [
    { of: "/@graphiql/plugin-doc-explorer/dist/context.js", asked: "./components/doc-explorer.js", given: "doc-explorer.jsx" },
    { of: "/@graphiql/react/dist/components/tabs/index.js", asked: "framer-motion", given: "reorder.jsx" },
  ];
  const used = new Set();
  return {
    name: "xp:own-parts",
    enforce: "pre",
    resolveId(asked, importer) {
      const part = parts.find((one) => one.asked === asked && importer?.endsWith(one.of));
      if (!part) return null;
      used.add(part);
      return fileURLToPath(new URL(`src/${part.given}`, import.meta.url));
    },
    buildEnd(error) {
      const unused = parts.find((part) => !used.has(part));
      if (!error && unused) this.error(`${unused.of} does not import ${unused.asked} any more: look at this plugin again`);
    },
  };
}

function listModules(bundled) {
  return {
    name: "xp:list-modules",
    generateBundle(_options, output) {
      for (const chunk of Object.values(output)) {
        for (const [id, { renderedLength }] of Object.entries(chunk.modules ?? {})) {
          if (renderedLength > 0 || id.includes(".css")) bundled.add(id);
        }
      }
    },
  };
}
