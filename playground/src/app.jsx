// The page: GraphiQL's own parts, put together with our top bar. Talking to the server is in fetcher.js.
import { GraphiQLProvider } from "@graphiql/react";
import { DOC_EXPLORER_PLUGIN, DocExplorerStore } from "@graphiql/plugin-doc-explorer";
import { HISTORY_PLUGIN, HistoryStore } from "@graphiql/plugin-history";
import { GraphiQL, GraphiQLInterface } from "graphiql";
import { useEffect, useState } from "react";
import { FIRST } from "./examples.js";
import { ExplainSwitch } from "./explain-switch.jsx";
import { createFetcher } from "./fetcher.js";
import { Footer } from "./footer.jsx";
import { withToken } from "./headers.js";
import { OPERATIONS_PLUGIN } from "./operations-plugin.jsx";
import * as runs from "./runs.js";
import { keepOverReload, refresh } from "./session.js";
import { SharedOperation } from "./shared-operation.jsx";
import { setTokens } from "./tokens.js";
import { TopBar } from "./top-bar.jsx";

const PLUGINS = [DOC_EXPLORER_PLUGIN, HISTORY_PLUGIN, OPERATIONS_PLUGIN];
const ACCOUNT_KEY = "xp:account";

/** `restored` has signed in before the tab was reloaded. */
export function App({ config, restored }) {
  const [fetcher] = useState(() => createFetcher(config));
  const [account, setAccount] = useState(() => restored ?? rememberedAccount(config.accounts));
  const [signedIn, setSignedIn] = useState(restored);
  const accounts = signedIn ? [...config.accounts, signedIn] : config.accounts;
  const [initialHeaders] = useState(() => {
    setTokens(accounts, account);
    return withToken("", account?.token);
  });

  function chooseAccount(next) {
    window.localStorage.setItem(ACCOUNT_KEY, next?.name ?? "");
    setAccount(next);
  }

  /** Who has signed in with the form, or null who has signed out. */
  function changeSignedIn(next) {
    setSignedIn(next);
    setAccount(next ?? rememberedAccount(config.accounts));
  }

  useEffect(() => keepOverReload(signedIn), [signedIn]);
  useRefresh(config.endpoint, signedIn, changeSignedIn);

  return (
    <GraphiQLProvider
      fetcher={fetcher}
      plugins={PLUGINS}
      referencePlugin={DOC_EXPLORER_PLUGIN}
      defaultQuery={FIRST}
      onTabChange={({ tabs, activeTabIndex }) => runs.setTab(tabs[activeTabIndex]?.id)}
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
            >
              <GraphiQL.Toolbar>
                {({ prettify, merge, copy }) => (
                  <>
                    {config.explains && <ExplainSwitch />}
                    {prettify}
                    {merge}
                    {copy}
                  </>
                )}
              </GraphiQL.Toolbar>
              <GraphiQL.Footer>
                <Footer config={config} />
              </GraphiQL.Footer>
            </GraphiQLInterface>
            <SharedOperation />
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
