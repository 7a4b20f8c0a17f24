// The bar above GraphiQL: the name, the examples menu and the account select, and what they do to the editors.
import { DropdownMenu, pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import { AccountButton } from "./account-dialog.jsx";
import { fillVariables, groups } from "./examples.js";
import { readHeaders, withToken } from "./headers.js";
import icon from "./icon.svg";
import { SchemaButton } from "./schema-dialog.jsx";
import { useEditorsReady, useOpenOperation } from "./open-operation.js";
import * as runs from "./runs.js";
import { isOurs, setTokens } from "./tokens.js";

/** `lasting` is what the app has to say, for as long as it is so. */
export function TopBar({ config, accounts, account, onAccount, signedIn, onSignedIn, lasting }) {
  useAccountHeader(accounts, account);
  useSchemaFor(account);
  const [note, setNote] = useState("");
  const count = useSyncExternalStore(runs.subscribe, runs.count);
  // What is said of an example holds until something is run.
  useEffect(() => setNote(""), [count]);
  return (
    <header className="graphiql-container xp-bar">
      <h1 className="xp-name">
        <img src={icon} alt="" width="20" height="20" /> XP Graph
      </h1>
      <ExamplesMenu endpoint={config.endpoint} onNote={setNote} />
      <SchemaButton />
      <p className="xp-note" role="status" title={note || lasting}>
        {note || lasting}
      </p>
      {accounts.length > 0 && (
        <AccountSelect accounts={accounts} account={account} signedIn={signedIn} onAccount={onAccount} />
      )}
      <AccountButton config={config} signedIn={signedIn} onSignedIn={onSignedIn} />
    </header>
  );
}

function ExamplesMenu({ endpoint, onNote }) {
  const open = useOpenExample(endpoint, onNote);
  const ready = useEditorsReady();
  return (
    <DropdownMenu modal={false}>
      <DropdownMenu.Button className="xp-button" disabled={!ready}>
        Examples <span aria-hidden="true" className="xp-caret" />
      </DropdownMenu.Button>
      <DropdownMenu.Content className="xp-menu" collisionPadding={8}>
        {groups.map(({ title, examples }) => (
          <div key={title} role="group" aria-label={title}>
            <div className="xp-group">{title}</div>
            {examples.map((example) => (
              <DropdownMenu.Item key={example.name} className="xp-item" onSelect={() => open(example)}>
                <span className="xp-item-title">
                  {example.title}
                  {MARKS[example.kind] && <span className="xp-mark">{MARKS[example.kind]}</span>}
                </span>
                <span className="xp-item-text">{example.description}</span>
              </DropdownMenu.Item>
            ))}
          </div>
        ))}
      </DropdownMenu.Content>
    </DropdownMenu>
  );
}

/** What is filled in and left to the run button says why. */
const MARKS = { mutation: "changes data", subscription: "live", live: "live" };

const SIGNED_IN = "signed in";

function AccountSelect({ accounts, account, signedIn, onAccount }) {
  const headerEditor = useGraphiQL((state) => state.headerEditor);
  // Who has signed in may be a demo account too: the two have different tokens.
  const value = (one) => (one && one === signedIn ? SIGNED_IN : (one?.name ?? ""));
  function choose({ target }) {
    const next = accounts.find((one) => value(one) === target.value) ?? null;
    headerEditor?.setValue(withToken(headerEditor.getValue(), next?.token));
    onAccount(next);
  }
  return (
    <label className="xp-account">
      Account
      <select value={value(account)} onChange={choose}>
        {accounts.map((one) => (
          <option key={value(one)} value={value(one)}>
            {`${one.name} (${one === signedIn ? SIGNED_IN : one.role.toLowerCase()})`}
          </option>
        ))}
        <option value="">anonymous (no token)</option>
      </select>
    </label>
  );
}

const FILLED_IN = {
  subscription: "Filled in. Press the run button to listen.",
  live: "Filled in. Press the run button to listen.",
  mutation: "Filled in, not run: it changes data. Press the run button to run it.",
};

/**
 * Opens an example in a new tab, with this tab's headers and variables the server can answer. Runs what only reads; what
 * writes or waits, or cannot be answered as it is, is left to the run button.
 */
function useOpenExample(endpoint, onNote) {
  const open = useOpenOperation();
  const headerEditor = useGraphiQL((state) => state.headerEditor);
  return async (example) => {
    onNote("");
    const headers = readHeaders(headerEditor.getValue());
    const { variables, problem } = await fillVariables(example, endpoint, headers);
    onNote(problem ?? FILLED_IN[example.kind] ?? "");
    open({ ...example, variables }, example.kind === "query" && !problem);
  };
}

/** Not everybody is told the schema: where it was refused, it is asked for again as another account. */
function useSchemaFor(account) {
  const schema = useGraphiQL((state) => state.schema);
  const { introspect } = useGraphiQLActions();
  const asked = useRef(account);
  useEffect(() => {
    if (asked.current === account) return;
    asked.current = account;
    if (!schema) introspect();
  }, [account]);
}

/** A tab opened later, or opened before a switch, follows the chosen account too, unless a person typed another token. */
function useAccountHeader(accounts, account) {
  const { headerEditor, activeTabIndex, tabs } = useGraphiQL(pick("headerEditor", "activeTabIndex", "tabs"));
  const tabId = tabs[activeTabIndex]?.id;
  useEffect(() => {
    setTokens(accounts, account);
    if (!headerEditor || accounts.length === 0) return;
    const text = headerEditor.getValue();
    const next = withToken(text, account?.token);
    if (isOurs(readHeaders(text)) && readHeaders(text).Authorization !== readHeaders(next).Authorization) {
      headerEditor.setValue(next);
    }
  }, [accounts, account, headerEditor, tabId]);
}
