// The page: GraphiQL's own parts, put together with our top bar. Talking to the server is in fetcher.js.
import { GraphiQLProvider } from "@graphiql/react";
import { DOC_EXPLORER_PLUGIN, DocExplorerStore } from "@graphiql/plugin-doc-explorer";
import { HISTORY_PLUGIN, HistoryStore } from "@graphiql/plugin-history";
import { GraphiQLInterface } from "graphiql";
import { useEffect, useState } from "react";
import { examples } from "./examples.js";
import { createFetcher } from "./fetcher.js";
import { withToken } from "./headers.js";
import { refresh } from "./session.js";
import { TopBar } from "./top-bar.jsx";

const PLUGINS = [DOC_EXPLORER_PLUGIN, HISTORY_PLUGIN];
const ACCOUNT_KEY = "xp:account";

export function App({ config }) {
  const [fetcher] = useState(() => createFetcher(config.endpoint));
  const [account, setAccount] = useState(() => rememberedAccount(config.accounts));
  const [signedIn, setSignedIn] = useState(null);
  const accounts = signedIn ? [...config.accounts, signedIn] : config.accounts;
  const [initialHeaders] = useState(() => withToken("", account?.token));

  function chooseAccount(next) {
    window.localStorage.setItem(ACCOUNT_KEY, next?.name ?? "");
    setAccount(next);
  }

  /** Who has signed in with the form, or null who has signed out. */
  function changeSignedIn(next) {
    setSignedIn(next);
    setAccount(next ?? rememberedAccount(config.accounts));
  }

  useRefresh(config.endpoint, signedIn, changeSignedIn);

  return (
    <GraphiQLProvider
      fetcher={fetcher}
      plugins={PLUGINS}
      referencePlugin={DOC_EXPLORER_PLUGIN}
      defaultQuery={examples[0].query}
      defaultHeaders={initialHeaders}
      initialHeaders={initialHeaders}
    >
      <HistoryStore>
        <DocExplorerStore>
          <TopBar
            config={config}
            accounts={accounts}
            account={account}
            onAccount={chooseAccount}
            signedIn={signedIn}
            onSignedIn={changeSignedIn}
          />
          <main className="xp-main">
            <GraphiQLInterface
              showPersistHeadersSettings={false}
              defaultEditorToolsVisibility={initialHeaders ? "headers" : undefined}
            />
          </main>
        </DocExplorerStore>
      </HistoryStore>
    </GraphiQLProvider>
  );
}

/** How long before its end an access token is exchanged. */
const EARLY_MS = 30_000;

/** Keeps the tokens of who has signed in fresh; a session that was ended elsewhere ends here too. */
function useRefresh(endpoint, signedIn, onSignedIn) {
  useEffect(() => {
    if (!signedIn) return undefined;
    const timer = setTimeout(
      () => refresh(endpoint, signedIn).then(onSignedIn, () => onSignedIn(null)),
      Math.max(0, signedIn.expiresAt - EARLY_MS - Date.now()),
    );
    return () => clearTimeout(timer);
  }, [endpoint, signedIn]);
}

/** The account chosen last time, the first one otherwise; null for "Anonymous". */
function rememberedAccount(accounts) {
  const name = window.localStorage.getItem(ACCOUNT_KEY);
  if (name === "") return null;
  return accounts.find((account) => account.name === name) ?? accounts[0] ?? null;
}
