// The documentation in the side bar, as a file of its own: its search and its Markdown are a good third of what the page
// is made of, and nobody reads them before the editor is there. vite.config.mjs puts this in the place of GraphiQL's component.
import { useEffect, useRef, useState } from "react";

/** What GraphiQL's shortcut for the search clicks on: until there is one, the click is kept for it. */
const SEARCH = "graphiql-doc-explorer-search-input";

let Loaded = null;

/** Has the file come; once it is there, the documentation is drawn at once. */
export async function loadDocExplorer() {
  Loaded ??= (await import("../node_modules/@graphiql/plugin-doc-explorer/dist/components/doc-explorer.js")).DocExplorer;
}

export function DocExplorer() {
  const [state, setState] = useState(Loaded ? "loaded" : "loading");
  const isSearchWanted = useRef(false);
  useEffect(() => {
    loadDocExplorer().then(
      () => setState("loaded"),
      () => setState("failed"),
    );
  }, []);
  useEffect(() => {
    if (state === "loaded" && isSearchWanted.current) document.querySelector(`.${SEARCH}`)?.click();
  }, [state]);
  if (Loaded) return <Loaded />;
  return (
    <p className="xp-hint" role="status">
      {state === "failed" ? "The documentation cannot be loaded." : "Loading the documentation …"}
      <span hidden className={SEARCH} onClick={() => (isSearchWanted.current = true)} />
    </p>
  );
}
