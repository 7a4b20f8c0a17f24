// The panel that shows how the server made an answer: figures, a waterfall (or the same as a table), the statement that is
// pointed at, and its plan. What it draws is `extensions.explain` and nothing else; see explain.js.
import { useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { count, describeCache, describeWait, milliseconds, totals, waterfall } from "./explain.js";
import { currentHeaders } from "./tokens.js";
import * as settings from "./settings.js";

export function ExplainPanel({ run }) {
  const view = useSyncExternalStore(settings.subscribe, () => settings.read("explain-view", "waterfall"));
  const [set, setSet] = useState(0);
  // Another run may have fewer sets of variables.
  useEffect(() => setSet(0), [run.began]);
  const explain = run.explains?.[set]?.explain ?? run.explain;
  const drawn = useMemo(() => waterfall(explain), [explain]);
  const [pointed, setPointed] = useState(null);
  const [chosen, setChosen] = useState(null);
  useEffect(() => {
    setPointed(null);
    setChosen(null);
  }, [explain]);
  const shown = chosen ?? pointed;
  return (
    <section className="xp-explain" aria-label="Explain">
      <div className="xp-explain-head">
        <dl className="xp-pairs xp-totals">
          {totals(explain, run.explains?.length > 1 ? undefined : run).map(({ name, value }) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
        {run.explains?.length > 1 && <SetSelect explains={run.explains} set={set} onSet={setSet} />}
        <div className="xp-views" role="group" aria-label="View">
          {["waterfall", "table"].map((name) => (
            <button
              key={name}
              type="button"
              className="xp-choice"
              aria-pressed={view === name}
              onClick={() => settings.write("explain-view", name)}
            >
              {name === "table" ? "Table" : "Waterfall"}
            </button>
          ))}
        </div>
      </div>
      {view === "table" ? (
        <Table explain={explain} rows={drawn.rows} onChoose={setChosen} chosen={chosen} />
      ) : (
        <Waterfall explain={explain} {...drawn} onPoint={setPointed} onChoose={setChosen} chosen={chosen} />
      )}
      {shown !== null && explain.sql[shown] && (
        <Statement run={run} explain={explain} sql={explain.sql[shown]} index={shown} asksForPlan={chosen === shown} />
      )}
    </section>
  );
}

/** The sets of a mutation run one after the other: each has rows of its own. */
function SetSelect({ explains, set, onSet }) {
  return (
    <label className="xp-set">
      Variable set
      <select value={set} onChange={({ target }) => onSet(Number(target.value))}>
        {explains.map(({ index }, place) => (
          <option key={index} value={place}>
            {index}
          </option>
        ))}
      </select>
    </label>
  );
}

function Waterfall({ explain, rows, spanMs, onPoint, onChoose, chosen }) {
  const part = (ms) => `${(100 * ms) / spanMs}%`;
  return (
    <ol className="xp-list xp-waterfall">
      {rows.map((row, index) => (
        <li key={index} className={`xp-row xp-row-${row.kind}${row.known ? " xp-row-known" : ""}`}>
          <RowHead explain={explain} row={row} onPoint={onPoint} onChoose={onChoose} chosen={chosen} />
          <span className="xp-track" aria-hidden="true">
            <span className="xp-span" style={{ left: part(row.startMs), width: part(row.ms) }} />
            {row.waitedMs > 0 && (
              <span className="xp-span xp-span-waiting" style={{ left: part(row.startMs), width: part(row.waitedMs) }} />
            )}
          </span>
          <span className="xp-ms">{milliseconds(row.ms)}</span>
        </li>
      ))}
    </ol>
  );
}

function RowHead({ explain, row, onPoint, onChoose, chosen }) {
  const text = detailOf(row, explain);
  const detail = (
    <span className="xp-hint xp-row-detail" title={text}>
      {text}
    </span>
  );
  if (row.kind !== "statement") {
    return (
      <span className="xp-row-head">
        <span className="xp-row-label">{row.label}</span> {detail}
      </span>
    );
  }
  return (
    <button
      type="button"
      className="xp-plain xp-row-head"
      aria-pressed={chosen === row.statement}
      onPointerEnter={() => onPoint(row.statement)}
      onFocus={() => onPoint(row.statement)}
      onClick={() => onChoose(chosen === row.statement ? null : row.statement)}
    >
      <span className="xp-sql-mark">SQL</span> <span className="xp-row-label">{row.label}</span> {detail}
    </button>
  );
}

function detailOf(row, explain) {
  if (row.kind === "document") return row.known ? "not parsed again" : "for the first time";
  if (row.kind === "level") return count(row.count, "batch", "batches");
  if (row.kind === "statement") return count(row.sql.rows, "row", "rows");
  if (row.kind === "resolver") {
    const { rows, failed } = row.resolver;
    return `called for ${count(rows, "row", "rows")}${failed ? `, ${failed} failed` : ""}`;
  }
  const { keys, found, cache } = row.batch;
  const waited = describeWait(row.batch, explain);
  return [`${count(keys, "key", "keys")}, ${found} found`, ...waited, ...describeCache(cache)].join(" · ");
}

function Table({ explain, rows, onChoose, chosen }) {
  return (
    <div className="xp-table-frame" tabIndex={0} role="region" aria-label="Explain as a table">
      <table className="xp-table">
        <thead>
          <tr>
            <th scope="col">What</th>
            <th scope="col">Name</th>
            <th scope="col">Level</th>
            <th scope="col">Keys</th>
            <th scope="col">Found</th>
            <th scope="col">Rows</th>
            <th scope="col">Cache</th>
            <th scope="col">Waited for</th>
            <th scope="col">Start</th>
            <th scope="col">Time</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index}>
              <td>{row.kind}</td>
              <th scope="row">
                {row.kind === "statement" ? (
                  <button
                    type="button"
                    className="xp-plain xp-link"
                    aria-pressed={chosen === row.statement}
                    onClick={() => onChoose(chosen === row.statement ? null : row.statement)}
                  >
                    {row.label}
                  </button>
                ) : (
                  row.label
                )}
              </th>
              <td>{row.level || ""}</td>
              <td>{row.batch?.keys}</td>
              <td>{row.batch?.found}</td>
              <td>{row.sql?.rows ?? row.resolver?.rows}</td>
              <td>{row.batch && describeCache(row.batch.cache).join("; ")}</td>
              <td>{row.batch && describeWait(row.batch, explain).join("; ")}</td>
              <td>{milliseconds(row.startMs)}</td>
              <td>{milliseconds(row.ms)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Statement({ run, explain, sql, index, asksForPlan }) {
  const hasPlans = explain.plans !== undefined;
  const plan = usePlan(run, asksForPlan && hasPlans ? `/playground/plans/${explain.plans}/${index}` : null);
  const frame = useRef(null);
  const heading = useRef(null);
  // The text of the statement may fill the frame: what was asked for comes into sight.
  useEffect(() => {
    if (heading.current) frame.current.scrollTop = heading.current.offsetTop;
  }, [plan]);
  return (
    <section ref={frame} className="xp-statement" aria-label={`Statement ${sql.name}`}>
      <pre tabIndex={0}>{broken(sql.text ?? "")}</pre>
      {plan === null && (
        <p className="xp-hint">
          {hasPlans ? "Press the row for its plan." : "Administrators get the plan of a statement here."}
        </p>
      )}
      {plan !== null && (
        <>
          <h3 ref={heading}>Plan</h3>
          <pre tabIndex={0} className="xp-plan">
            {plan}
          </pre>
        </>
      )}
    </section>
  );
}

/** The plan behind this address; `null` without one. */
function usePlan({ headers }, path) {
  const [plan, setPlan] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    setPlan(path && "…");
    if (path) readPlan(path, currentHeaders(headers)).then((text) => isCurrent && setPlan(text));
    return () => {
      isCurrent = false;
    };
  }, [path]);
  return plan;
}

async function readPlan(path, { Authorization }) {
  try {
    const response = await fetch(path, { headers: Authorization ? { Authorization } : {} });
    const answer = await response.json();
    return answer.plan?.join("\n") ?? answer.errors[0].message;
  } catch (error) {
    return `The plan cannot be read: ${error.message}`;
  }
}

const CLAUSES =
  / (?=(?:FROM|WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|LEFT JOIN|JOIN|CROSS JOIN|RETURNING|VALUES|SET|ON CONFLICT|UNION ALL)\b)/g;

/** A statement on several lines; nothing but white space is changed. */
function broken(text) {
  return text.replace(CLAUSES, "\n");
}
