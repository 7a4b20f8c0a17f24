// The bar under the answer: how it came (status, time, size, caches, cost), and how to take the operation elsewhere: copied
// as a command or as code, as the id of its document, or as a link. What is copied is what stands in the editors.
import { DropdownMenu, pick, useGraphiQL } from "@graphiql/react";
import { useRef, useState } from "react";
import { inWords } from "./changes.js";
import { formatBytes, milliseconds } from "./explain.js";
import { operationOf } from "./fetcher.js";
import { asCurl, asFetch, documentId, shareLink } from "./export.js";
import { readHeaders } from "./headers.js";
import { wordsOf } from "./live-log.jsx";
import { parseVariables } from "./variables.js";

const WAITING = {
  running: "Waiting for the answer",
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Connecting again",
  ended: "Ended",
};

export function AnswerBar({ config, run, children }) {
  return (
    <div className="xp-answer-bar">
      <dl className="xp-pairs xp-facts" aria-label="The answer">
        {facts(run).map(({ name, value, tone }) => (
          <div key={name} className={tone && `xp-tone-${tone}`}>
            <dt>{name}</dt>
            <dd title={value}>{value}</dd>
          </div>
        ))}
      </dl>
      <div className="xp-answer-actions">
        {children}
        <CopyMenu config={config} />
      </div>
    </div>
  );
}

function facts(run) {
  if (!run) return [];
  const { status, ms, bytes, cache, cost, explain, sets, state, received, problem } = run;
  const known = [];
  if (status !== undefined)
    known.push({ name: "Status", value: String(status), tone: status < 400 ? "good" : "bad" });
  if (status === undefined)
    known.push({
      name: "State",
      value: WAITING[state] ?? problem ?? "No answer",
      tone: state === "failed" ? "bad" : undefined,
    });
  if (sets) {
    const { count, failed } = sets;
    const value = failed ? `${count}, ${failed} with errors` : String(count);
    known.push({ name: "Variable sets", value, tone: failed ? "bad" : undefined });
  }
  if (ms !== undefined) known.push({ name: "Time", value: milliseconds(ms) });
  if (bytes !== undefined) known.push({ name: "Size", value: formatBytes(bytes) });
  if (received > 0) known.push({ name: wordsOf(run).title, value: String(received) });
  const { changes } = run.events.at(-1) ?? {};
  if (changes) known.push({ name: "Since the last", value: inWords(changes) });
  if (cache) known.push({ name: "Cache", value: cache });
  if (cost ?? explain) known.push({ name: "Cost", value: cost ?? costOf(explain) });
  return known;
}

/** Events come without headers: their cost is known where they are explained. */
function costOf({ cost, maxCost }) {
  return `${cost} of ${maxCost}`;
}

/** Whether it has more than one answer. */
function isStreamed({ query, operationName }) {
  const { kind, isLive } = operationOf(query, operationName);
  return kind === "subscription" || isLive;
}

function variablesOf(text) {
  try {
    return parseVariables(text);
  } catch (error) {
    throw new Error(`Not copied. Variables ${error.message}`);
  }
}

function CopyMenu({ config }) {
  const { queryEditor, variableEditor, headerEditor, operationName } = useGraphiQL(
    pick("queryEditor", "variableEditor", "headerEditor", "operationName"),
  );
  const [note, setNote] = useState("");
  const ending = useRef(0);
  async function copy(make) {
    // What was said of an earlier copy is not said of this one; and what is said twice is read aloud twice.
    setNote("");
    try {
      const request = {
        query: queryEditor.getValue(),
        variables: variablesOf(variableEditor.getValue()),
        operationName: operationName ?? undefined,
      };
      const url = new URL(config.endpoint, window.location.href).href;
      await navigator.clipboard.writeText(
        await make({ url, request, headers: readHeaders(headerEditor.getValue()), isStream: isStreamed(request) }),
      );
      setNote("Copied");
    } catch (error) {
      setNote(error.message);
    }
    // An older note ends no newer one.
    clearTimeout(ending.current);
    ending.current = setTimeout(() => setNote(""), 4000);
  }
  const entries = [
    ["cURL, without the token", (asked) => asCurl(asked, false)],
    ["cURL, with the token", (asked) => asCurl(asked, true)],
    ["JavaScript (fetch)", asFetch],
    ["Id of the document", documentId],
    ["Link to this operation", shareLink],
  ];
  return (
    <>
      <span className="xp-copied" role="status">
        {note}
      </span>
      <DropdownMenu modal={false}>
        <DropdownMenu.Button className="xp-choice" disabled={!headerEditor}>
          Copy <span aria-hidden="true" className="xp-caret" />
        </DropdownMenu.Button>
        <DropdownMenu.Content className="xp-menu" align="end">
          {entries.map(([title, make]) => (
            <DropdownMenu.Item key={title} className="xp-item" onSelect={() => copy(make)}>
              {title}
            </DropdownMenu.Item>
          ))}
        </DropdownMenu.Content>
      </DropdownMenu>
    </>
  );
}
