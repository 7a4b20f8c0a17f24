// The part of the side bar with the operations that are kept: a person's own, by name, as a file too, and those that the
// operator of the server has published. A press opens one in a tab of its own; none is run by that.
import { pick, useGraphiQL } from "@graphiql/react";
import { useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { AccountContext } from "./account-context.js";
import { NotReached } from "./errors.js";
import { readHeaders } from "./headers.js";
import { useEditorsReady, useOpenOperation } from "./open-operation.js";
import * as saved from "./saved.js";

export const OPERATIONS_PLUGIN = { title: "Operations", icon: Icon, content: Operations };

function Icon() {
  return (
    <svg width="24" height="24" viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.5" aria-hidden="true">
      <path d="M6 3.75h12a1 1 0 0 1 1 1v15.5l-7-4.5-7 4.5V4.75a1 1 0 0 1 1-1Z" strokeLinejoin="round" />
    </svg>
  );
}

function Operations() {
  return (
    <section className="xp-operations" aria-label="Operations">
      <h2 className="graphiql-history-header xp-operations-title">Operations</h2>
      <Own />
      <Published />
    </section>
  );
}

function Own() {
  const operations = useSyncExternalStore(saved.subscribe, saved.all);
  const { queryEditor, variableEditor } = useGraphiQL(pick("queryEditor", "variableEditor"));
  const open = useOpenOperation();
  const isReady = useEditorsReady();
  const file = useRef(null);
  const [note, setNote] = useState("");
  async function attempt(work) {
    try {
      setNote((await work()) ?? "");
    } catch (error) {
      setNote(error.message);
    }
  }
  function save(event) {
    event.preventDefault();
    const form = event.currentTarget;
    attempt(() => {
      const name = new FormData(form).get("name");
      const said = saved.save({ name, query: queryEditor.getValue(), variables: variableEditor.getValue() });
      form.reset();
      return said;
    });
  }
  async function read({ target }) {
    const [chosen] = target.files;
    if (chosen) await attempt(async () => saved.importFrom(await chosen.text()));
    target.value = "";
  }
  return (
    <>
      <h3>Mine</h3>
      <form className="xp-save" onSubmit={save}>
        <input className="xp-input" name="name" aria-label="Name of the operation" placeholder="Name" required maxLength={100} />
        <button className="xp-choice" disabled={!isReady}>
          Save
        </button>
      </form>
      {operations.length === 0 && <p className="xp-hint">What stands in the editors is kept in this browser under a name.</p>}
      <ul className="xp-list">
        {operations.map((operation) => (
          <li key={operation.name}>
            <button type="button" className="xp-plain xp-open" disabled={!isReady} onClick={() => open(operation)}>
              {operation.name}
            </button>
            <button
              type="button"
              className="xp-choice"
              aria-label={`Remove ${operation.name}`}
              onClick={() => saved.remove(operation.name)}
            >
              Remove
            </button>
          </li>
        ))}
      </ul>
      <div className="xp-files">
        <button type="button" className="xp-choice" disabled={operations.length === 0} onClick={download}>
          Export
        </button>
        <button type="button" className="xp-choice" onClick={() => file.current.click()}>
          Import
        </button>
        <input ref={file} type="file" accept="application/json,.json" aria-label="File to import" hidden onChange={read} />
      </div>
      <p className="xp-hint" role="status">
        {note}
      </p>
    </>
  );
}

function download() {
  const address = URL.createObjectURL(new Blob([saved.exported()], { type: "application/json" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: "xp-operations.json" });
  link.click();
  URL.revokeObjectURL(address);
}

function Published() {
  const [documents, setDocuments] = useState(null);
  const [problem, setProblem] = useState("");
  const headerEditor = useGraphiQL((state) => state.headerEditor);
  const account = useContext(AccountContext);
  const open = useOpenOperation();
  // Not everybody may list them: another account is answered something else.
  useEffect(() => {
    if (!headerEditor) return undefined;
    let isLate = false;
    const show = (listed, said) => {
      if (isLate) return;
      setDocuments(listed);
      setProblem(said);
    };
    const { Authorization } = readHeaders(headerEditor.getValue());
    listPublished(Authorization).then((listed) => show(listed, ""), (error) => show(null, error.message));
    return () => {
      isLate = true;
    };
  }, [headerEditor, account]);
  return (
    <>
      <h3>Published on this server</h3>
      {problem && <p className="xp-hint">{problem}</p>}
      {documents?.length === 0 && <p className="xp-hint">No document is published here.</p>}
      <ul className="xp-list">
        {documents?.map(({ id, client, operations, text, requests, lastUsedSeconds }) => (
          <li key={`${client} ${id}`}>
            <button
              type="button"
              className="xp-plain xp-open"
              title={id}
              onClick={() => open({ query: text, variables: "", operationName: operations[0] })}
            >
              {operations.join(", ") || id.slice(0, 12)}
              <span className="xp-hint">
                {client && `${client} · `}
                {requests === 1 ? "1 request" : `${requests} requests`}
                {lastUsedSeconds > 0 && `, last ${new Date(lastUsedSeconds * 1000).toLocaleString()}`}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}

async function listPublished(Authorization) {
  const headers = Authorization ? { Authorization } : {};
  const response = await fetch("/playground/documents.json", { headers }).catch(() => {
    throw new NotReached();
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok || !answer.documents) {
    throw new Error(answer.errors?.[0]?.message ?? `The server answered ${response.status} without a list.`);
  }
  return answer.documents;
}
