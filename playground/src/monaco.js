// The editor under GraphiQL: which workers it starts (files of ours, so `worker-src 'self'` is enough), and that it frames
// no character of another script as one to be mistaken for another. It is a file of its own, which comes after the page has
// been drawn. Languages: GraphQL and JSON only, which is what monaco-graphql imports.
import EditorWorker from "monaco-editor/esm/vs/editor/editor.worker.js?worker";
import JsonWorker from "monaco-editor/esm/vs/language/json/json.worker.js?worker";
import GraphQLWorker from "monaco-graphql/esm/graphql.worker.js?worker";
import { loadDocExplorer } from "./doc-explorer.jsx";

const WORKERS = { json: JsonWorker, graphql: GraphQLWorker };

globalThis.MonacoEnvironment = {
  getWorker: (_id, label) => new (WORKERS[label] ?? EditorWorker)(),
};

// Dashes in titles, letters of other scripts in names: data is no code that somebody may have tampered with.
const options = {
  unicodeHighlight: { ambiguousCharacters: false, invisibleCharacters: false, nonBasicASCII: false },
};

// GraphiQL asks for the same file, and on a busy machine may have made its first editors before this runs.
import("monaco-graphql/esm/monaco-editor.js").then(({ editor }) => {
  editor.onDidCreateEditor((created) => created.updateOptions(options));
  for (const existing of editor.getEditors()) existing.updateOptions(options);
  loadDocExplorer();
});
