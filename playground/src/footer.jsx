// What stands under the answer: the bar that says how it came, and below it the panels, of which one is open at a time.
import { useGraphiQL } from "@graphiql/react";
import { useEffect, useSyncExternalStore } from "react";
import { AnswerBar } from "./answer-bar.jsx";
import { ExplainPanel } from "./explain-panel.jsx";
import { LiveChanges } from "./live-changes.jsx";
import { LiveLog, wordsOf } from "./live-log.jsx";
import * as runs from "./runs.js";
import * as settings from "./settings.js";

export function Footer({ config }) {
  const tabId = useGraphiQL((state) => state.tabs[state.activeTabIndex]?.id);
  useEffect(() => runs.setTab(tabId), [tabId]);
  const run = useSyncExternalStore(runs.subscribe, runs.current);
  const wanted = useSyncExternalStore(settings.subscribe, () => settings.read("panel", "explain"));
  const panels = [];
  if (run?.explain) panels.push({ name: "explain", title: "Explain", content: <ExplainPanel run={run} /> });
  if (run?.kind === "subscription" || run?.isLive)
    panels.push({ name: "events", title: wordsOf(run).title, content: <LiveLog run={run} /> });
  const open = panels.find(({ name }) => name === wanted) ?? (wanted === "none" ? undefined : panels[0]);
  return (
    <div className={`xp-footer${open ? " xp-footer-open" : ""}`}>
      <LiveChanges run={run} />
      <AnswerBar config={config} run={run}>
        {panels.map(({ name, title }) => (
          <button
            key={name}
            type="button"
            className="xp-choice"
            aria-expanded={open?.name === name}
            onClick={() => settings.write("panel", open?.name === name ? "none" : name)}
          >
            {title}
          </button>
        ))}
      </AnswerBar>
      {open && <div className="xp-panel">{open.content}</div>}
    </div>
  );
}
