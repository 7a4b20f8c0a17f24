// The bar above GraphiQL: the name, the examples menu and the account select, and what they do to the editors.
import { DropdownMenu, pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useRef, useState } from "react";
import { AccountButton } from "./account-dialog.jsx";
import { fillVariables, groups } from "./examples.js";
import { isOurs, readHeaders, withToken } from "./headers.js";
import icon from "./icon.svg";

export function TopBar({ config, accounts, account, onAccount, signedIn, onSignedIn }) {
  useAccountHeader(accounts, account);
  const [note, setNote] = useState("");
  return (
    <header className="graphiql-container xp-bar">
      <h1 className="xp-name">
        <img src={icon} alt="" width="20" height="20" /> XP Graph
      </h1>
      <ExamplesMenu endpoint={config.endpoint} onNote={setNote} />
      <p className="xp-note" role="status">{note}</p>
      {accounts.length > 0 && (
        <AccountSelect accounts={accounts} account={account} signedIn={signedIn} onAccount={onAccount} />
      )}
      <AccountButton config={config} signedIn={signedIn} onSignedIn={onSignedIn} />
    </header>
  );
}

function ExamplesMenu({ endpoint, onNote }) {
  const open = useOpenExample(endpoint, onNote);
  const ready = useGraphiQL((state) => Boolean(state.queryEditor && state.variableEditor && state.headerEditor));
  return (
    <DropdownMenu>
      <DropdownMenu.Button className="xp-button" disabled={!ready}>
        Examples <span aria-hidden="true" className="xp-caret" />
      </DropdownMenu.Button>
      <DropdownMenu.Content className="xp-menu">
        {groups.map(({ title, examples }) => (
          <div key={title} role="group" aria-label={title}>
            <div className="xp-group">{title}</div>
            {examples.map((example) => (
              <DropdownMenu.Item key={example.name} className="xp-item" onSelect={() => open(example)}>
                <span className="xp-item-title">{example.title}</span>
                <span className="xp-item-text">{example.description}</span>
              </DropdownMenu.Item>
            ))}
          </div>
        ))}
      </DropdownMenu.Content>
    </DropdownMenu>
  );
}

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
  mutation: "Filled in, not run: it changes data. Press the run button to run it.",
};

/**
 * Opens an example in a new tab, with this tab's headers and variables the server can answer. Runs what only reads; what
 * writes or waits is left to the run button.
 */
function useOpenExample(endpoint, onNote) {
  const { addTab, setOperationName, run, stop } = useGraphiQLActions();
  const { queryEditor, variableEditor, headerEditor } = useGraphiQL(
    pick("queryEditor", "variableEditor", "headerEditor"),
  );
  return async (example) => {
    onNote("");
    const headers = headerEditor.getValue();
    const { variables, problem } = await fillVariables(example, endpoint, readHeaders(headers));
    onNote(problem ?? FILLED_IN[example.kind] ?? "");
    stop();
    addTab();
    queryEditor.setValue(example.query);
    variableEditor.setValue(variables);
    headerEditor.setValue(headers);
    setOperationName(example.operationName);
    if (variables) document.querySelector(".graphiql-editor-tools [data-name=variables]")?.click();
    if (example.kind === "query") run();
  };
}

/** A tab opened later, or opened before a switch, follows the chosen account too, unless a person typed another token. */
function useAccountHeader(accounts, account) {
  const { headerEditor, activeTabIndex, tabs } = useGraphiQL(pick("headerEditor", "activeTabIndex", "tabs"));
  const tabId = tabs[activeTabIndex]?.id;
  // Tokens that were ours once, too: those of a session that has been refreshed or has ended.
  const ours = useRef(new Set());
  useEffect(() => {
    for (const { token } of accounts) ours.current.add(token);
    if (!headerEditor || ours.current.size === 0) return;
    const text = headerEditor.getValue();
    const next = withToken(text, account?.token);
    if (isOurs(text, ours.current) && readHeaders(text).Authorization !== readHeaders(next).Authorization) {
      headerEditor.setValue(next);
    }
  }, [accounts, account, headerEditor, tabId]);
}
