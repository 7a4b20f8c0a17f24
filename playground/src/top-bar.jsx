// The bar above GraphiQL: the name, the examples menu and the account select, and what they do to the editors.
import { DropdownMenu, pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { useEffect, useState } from "react";
import { examples, fillVariables } from "./examples.js";
import { isOurs, readHeaders, withToken } from "./headers.js";
import icon from "./icon.svg";

export function TopBar({ config, account, onAccount }) {
  useAccountHeader(config.accounts, account);
  const [note, setNote] = useState("");
  return (
    <header className="graphiql-container xp-bar">
      <h1 className="xp-name">
        <img src={icon} alt="" width="20" height="20" /> XP Graph
      </h1>
      <ExamplesMenu endpoint={config.endpoint} onNote={setNote} />
      <p className="xp-note" role="status">{note}</p>
      {config.accounts.length > 0 && (
        <AccountSelect accounts={config.accounts} account={account} onAccount={onAccount} />
      )}
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
        {examples.map((example) => (
          <DropdownMenu.Item key={example.name} className="xp-item" onSelect={() => open(example)}>
            <span className="xp-item-title">{example.title}</span>
            <span className="xp-item-text">{example.description}</span>
          </DropdownMenu.Item>
        ))}
      </DropdownMenu.Content>
    </DropdownMenu>
  );
}

function AccountSelect({ accounts, account, onAccount }) {
  const headerEditor = useGraphiQL((state) => state.headerEditor);
  function choose({ target }) {
    const next = accounts.find(({ name }) => name === target.value) ?? null;
    headerEditor?.setValue(withToken(headerEditor.getValue(), next?.token));
    onAccount(next);
  }
  return (
    <label className="xp-account">
      Account
      <select value={account?.name ?? ""} onChange={choose}>
        {accounts.map(({ name, role }) => (
          <option key={name} value={name}>{`${name} (${role.toLowerCase()})`}</option>
        ))}
        <option value="">anonymous (no token)</option>
      </select>
    </label>
  );
}

/** Opens an example in a new tab, with this tab's headers and variables the server can answer, and runs it. */
function useOpenExample(endpoint, onNote) {
  const { addTab, setOperationName, run, stop } = useGraphiQLActions();
  const { queryEditor, variableEditor, headerEditor } = useGraphiQL(
    pick("queryEditor", "variableEditor", "headerEditor"),
  );
  return async (example) => {
    onNote("");
    const headers = headerEditor.getValue();
    const { variables, problem } = await fillVariables(example, endpoint, readHeaders(headers));
    if (problem) onNote(problem);
    stop();
    addTab();
    queryEditor.setValue(example.query);
    variableEditor.setValue(variables);
    headerEditor.setValue(headers);
    setOperationName(example.operationName);
    if (variables) document.querySelector(".graphiql-editor-tools [data-name=variables]")?.click();
    run();
  };
}

/** A tab opened later, or opened before a switch, follows the chosen account too, unless a person typed another token. */
function useAccountHeader(accounts, account) {
  const { headerEditor, activeTabIndex, tabs } = useGraphiQL(pick("headerEditor", "activeTabIndex", "tabs"));
  const tabId = tabs[activeTabIndex]?.id;
  useEffect(() => {
    if (!headerEditor || accounts.length === 0) return;
    const text = headerEditor.getValue();
    const next = withToken(text, account?.token);
    if (isOurs(text, accounts) && readHeaders(text).Authorization !== readHeaders(next).Authorization) {
      headerEditor.setValue(next);
    }
  }, [accounts, account, headerEditor, tabId]);
}
