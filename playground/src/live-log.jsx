// The events of a subscription as they came: number, time, size; the newest first. It can be held still while events go on
// coming. Connecting and reconnecting is the fetcher's; here it is only told.
import { useEffect, useRef, useState } from "react";
import { formatBytes } from "./explain.js";

const STATES = {
  connecting: "Connecting",
  listening: "Listening",
  reconnecting: "Connection lost, connecting again",
  ended: "Ended",
  failed: "Stopped",
};

export function LiveLog({ run }) {
  const [held, setHeld] = useState(null);
  const shown = held ?? run;
  const waiting = run.received - shown.received;
  // Another run begins with nothing held.
  useEffect(() => setHeld(null), [run.began]);
  return (
    <section className="xp-live" aria-label="Events">
      <div className="xp-live-head">
        <p role="status" className={`xp-state xp-state-${run.state}`}>
          {STATES[run.state]}
          {run.problem && `: ${run.problem}`}
        </p>
        <p>{run.received === 1 ? "1 event" : `${run.received} events`}</p>
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
      <ol className="xp-events" reversed>
        {[...shown.events].reverse().map((event, index, newestFirst) => (
          <Event key={event.number} event={event} before={newestFirst[index + 1]} />
        ))}
      </ol>
      {shown.events.length === 0 && <p className="xp-hint">No event has come yet.</p>}
    </section>
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
          <span className="xp-event-detail">
            {before && `+${seconds(event.ms - before.ms)} · `}
            {formatBytes(event.bytes)}
            {event.explain && ` · ${event.explain.sql.length} statements`}
          </span>
        </summary>
        {isOpen && (
          <pre tabIndex={0}>
            <Changed text={event.text} before={before?.text} />
          </pre>
        )}
      </details>
    </li>
  );
}

/** The lines of an event; those that the event before it did not have are marked. */
function Changed({ text, before }) {
  if (before === undefined) return text;
  const old = new Set(before.split("\n").map((line) => line.replace(/,$/, "")));
  return text
    .split("\n")
    .map((line, index) =>
      old.has(line.replace(/,$/, "")) ? `${line}\n` : <mark key={index}>{`${line}\n`}</mark>,
    );
}

function clock(date) {
  const two = (number) => String(number).padStart(2, "0");
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${millis}`;
}

function seconds(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
