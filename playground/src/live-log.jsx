// The events of a subscription, or the answers of a live query, as they came: number, time, size, and what an answer has
// changed; the newest first, and between them when the connection was lost and came back. It can be held still while events go
// on coming. Connecting is listen.js's; here it is only told.
import { useEffect, useRef, useState } from "react";
import { inWords } from "./changes.js";
import { count, formatBytes } from "./explain.js";

const STATES = {
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Connection lost",
  ended: "Ended",
  failed: "Stopped",
};

const EVENTS = {
  title: "Events",
  counted: ["event", "events"],
  none: "No event has come yet.",
  again: "What happened meanwhile was not sent: read it anew.",
};
const ANSWERS = {
  title: "Answers",
  counted: ["answer", "answers"],
  none: "No answer has come yet.",
  again: "The next answer is a whole one.",
};

/** What its events are called. */
export function wordsOf({ isLive }) {
  return isLive ? ANSWERS : EVENTS;
}

export function LiveLog({ run }) {
  const words = wordsOf(run);
  const [held, setHeld] = useState(null);
  const shown = held ?? run;
  const waiting = run.received - shown.received;
  // Another run begins with nothing held.
  useEffect(() => setHeld(null), [run.began]);
  return (
    <section className="xp-live" aria-label={words.title}>
      <div className="xp-live-head">
        <p role="status" className={`xp-state xp-state-${run.state}`}>
          {STATES[run.state]}
          {run.problem && `: ${run.problem}`}
        </p>
        {run.state === "reconnecting" && run.retry && <Retry {...run.retry} />}
        <p>{count(run.received, ...words.counted)}</p>
        <button
          type="button"
          className="xp-choice"
          aria-pressed={held !== null}
          onClick={() => setHeld(held ? null : run)}
        >
          Pause
        </button>
        {held && <p role="status">{`${waiting} waiting`}</p>}
      </div>
      <ol className="xp-list xp-events">
        {entries(shown).map(({ event, before, change }) =>
          event ? (
            <Event key={`event ${event.number}`} event={event} before={before} />
          ) : (
            <Connection key={`connection ${change.number}`} change={change} words={words} />
          ),
        )}
      </ol>
      {shown.events.length === 0 && <p className="xp-hint">{words.none}</p>}
    </section>
  );
}

/** Events and what became of the connection, the newest first. The first connection is no news. */
function entries({ events, connections }) {
  const listed = events.map((event, index) => ({ event, before: events[index - 1], place: event.number }));
  const changes = connections.filter(({ kind, downMs }) => kind === "lost" || downMs !== undefined);
  // Behind the event that it came after, and before the next.
  listed.push(...changes.map((change) => ({ change, place: change.after + 0.5 })));
  return listed.sort((a, b) => b.place - a.place || b.change.number - a.change.number);
}

/** Which attempt to connect again comes next, and when. */
function Retry({ attempt, of, at, now }) {
  const [time, setTime] = useState(Date.now);
  useEffect(() => {
    const timer = setInterval(() => setTime(Date.now()), 250);
    return () => clearInterval(timer);
  }, [at]);
  const left = at && Math.max(0, Math.ceil((at - time) / 1000));
  return (
    <>
      <p>{`Attempt ${attempt} of ${of}${at ? ` in ${left} s` : " is being made"}`}</p>
      {now && at && (
        <button type="button" className="xp-choice" onClick={now}>
          Connect now
        </button>
      )}
    </>
  );
}

function Connection({ change: { kind, at, text, downMs, resumes }, words }) {
  return (
    <li className={`xp-connection xp-connection-${kind}`}>
      <time dateTime={at.toISOString()}>{clock(at)}</time>{" "}
      {kind === "lost"
        ? `Connection lost: ${text}`
        : `Connected again after ${seconds(downMs)}. ${resumes ? "What happened meanwhile follows." : words.again}`}
    </li>
  );
}

function Event({ event, before }) {
  const [isOpen, setOpen] = useState(false);
  const details = useRef(null);
  return (
    <li>
      <details ref={details} onToggle={() => setOpen(details.current.open)}>
        <summary>
          <span className="xp-event-number">#{event.number}</span>{" "}
          <time dateTime={event.at.toISOString()}>{clock(event.at)}</time>{" "}
          <span className="xp-hint xp-event-detail">
            {before && `+${seconds(event.ms - before.ms)} · `}
            {formatBytes(event.bytes)}
            {event.changes && ` · ${inWords(event.changes)}`}
            {event.explain && ` · ${count(event.explain.sql.length, "statement", "statements")}`}
          </span>
        </summary>
        {isOpen && event.resumeToken && (
          <p className="xp-hint">
            Resume token: <code>{event.resumeToken}</code>
          </p>
        )}
        {isOpen && (
          <pre tabIndex={0}>
            <Changed text={event.text} before={before?.text} lines={event.changes?.lines} />
          </pre>
        )}
      </details>
    </li>
  );
}

/** The lines of an event; what an answer has changed, or the event before it did not have, is marked. */
function Changed({ text, before, lines }) {
  if (before === undefined) return text;
  const changed = new Set(lines);
  const old = new Set(before.split("\n").map((line) => line.replace(/,$/, "")));
  const isOld = (line, index) => (lines ? !changed.has(index + 1) : old.has(line.replace(/,$/, "")));
  return text
    .split("\n")
    .map((line, index) => (isOld(line, index) ? `${line}\n` : <mark key={index}>{`${line}\n`}</mark>));
}

function clock(date) {
  const two = (number) => String(number).padStart(2, "0");
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${millis}`;
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
