// The page: GraphiQL's own parts, put together with our top bar. Talking to the server is in fetcher.js.
import { GraphiQLProvider } from "@graphiql/react";
import { DOC_EXPLORER_PLUGIN, DocExplorerStore } from "@graphiql/plugin-doc-explorer";
import { HISTORY_PLUGIN, HistoryStore } from "@graphiql/plugin-history";
import { GraphiQL, GraphiQLInterface } from "graphiql";
import { useEffect, useRef, useState } from "react";
import { AccountContext } from "./account-context.js";
import { NotReached, toShow } from "./errors.js";
import { FIRST } from "./examples.js";
import { ExplainSwitch } from "./explain-switch.jsx";
import { createFetcher, INTROSPECTION } from "./fetcher.js";
import { Footer } from "./footer.jsx";
import { normalHeaders, withToken } from "./headers.js";
import { OPERATIONS_PLUGIN } from "./operations-plugin.jsx";
import { keepFresh } from "./renewal.js";
import * as runs from "./runs.js";
import { keepOverReload } from "./session.js";
import { SharedOperation } from "./shared-operation.jsx";
import { forGraphiQL, local } from "./storage.js";
import { bearer, setTokens } from "./tokens.js";
import { TopBar } from "./top-bar.jsx";

const PLUGINS = [DOC_EXPLORER_PLUGIN, HISTORY_PLUGIN, OPERATIONS_PLUGIN];
const ACCOUNT_KEY = "xp:account";
/** The code of an error that says the schema is not told. */
const REFUSED = "INTROSPECTION_DISABLED";

/** `restored` has signed in before the tab was reloaded. */
export function App({ config, restored }) {
  const [note, setNote] = useState("");
  const [account, setAccount] = useState(() => restored ?? rememberedAccount(config.accounts));
  const [signedIn, setSignedIn] = useState(restored);
  const accounts = signedIn ? [...config.accounts, signedIn] : config.accounts;
  const [initialHeaders] = useState(() => {
    setTokens(accounts, account);
    return withToken("", account?.token);
  });
  const [isSchemaRefused, setSchemaRefused] = useState(false);
  const fetcher = useFetcher(config, account, setSchemaRefused);

  function chooseAccount(next) {
    // What was said of a session that has ended is not said of another account.
    if (!signedIn) setNote("");
    local.setItem(ACCOUNT_KEY, next?.name ?? "");
    setAccount(next);
  }

  /** Who has signed in with the form, or null who has signed out. */
  function changeSignedIn(next) {
    setNote("");
    setSignedIn(next);
    setAccount(next ?? rememberedAccount(config.accounts));
  }

  /** The same with new tokens, or null; another account that was chosen meanwhile stays. */
  function renew(next) {
    setSignedIn(next);
    setAccount((chosen) => (chosen === signedIn ? (next ?? rememberedAccount(config.accounts)) : chosen));
  }

  useEffect(() => keepOverReload(signedIn), [signedIn]);
  useEffect(() => {
    if (!signedIn) return undefined;
    return keepFresh(config.endpoint, signedIn, { renewed: renew, say: setNote });
  }, [config.endpoint, signedIn]);

  return (
    <AccountContext value={account}>
      <GraphiQLProvider
        fetcher={fetcher}
        storage={forGraphiQL}
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
              lasting={note || (isSchemaRefused && !account ? NO_SCHEMA : "")}
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
    </AccountContext>
  );
}

const NO_SCHEMA = "Sign in as an administrator to see the schema.";

/** What GraphiQL asks with, and what the page makes of who asks. */
function useFetcher(config, account, onSchemaRefused) {
  const asking = useRef(account);
  asking.current = account;
  const [fetcher] = useState(() => {
    const send = createFetcher(config);
    return async (request, options) => {
      const isIntrospection = request.operationName === INTROSPECTION;
      // The schema is asked for before there is an editor with headers.
      const headers = options?.headers ?? (isIntrospection ? bearer() : {});
      const hasToken = normalHeaders(headers).Authorization !== undefined;
      // Without its token this account would be answered as nobody.
      if (asking.current?.token === "" && !hasToken) throw toShow(new NotReached());
      const answer = await send(request, { ...options, headers });
      if (!isIntrospection) return answer;
      const isRefused = !hasToken && Boolean(answer.errors?.some(({ extensions }) => extensions?.code === REFUSED));
      onSchemaRefused(isRefused);
      // Nobody has asked for this but the page itself: it is no answer to be shown.
      return isRefused ? "" : answer;
    };
  });
  return fetcher;
}

/** The account chosen last time, the first one otherwise; null for "Anonymous". */
function rememberedAccount(accounts) {
  const name = local.getItem(ACCOUNT_KEY);
  if (name === "") return null;
  return accounts.find((account) => account.name === name) ?? accounts[0] ?? null;
}
