// The dialog behind "Schema": a map of the types as SVG, which can be searched, and the schema's two texts to download. What
// is on the map is read from the text in schema-map.js.
import { useEffect, useMemo, useRef, useState } from "react";
import { NotReached } from "./errors.js";
import { count } from "./explain.js";
import { currentHeaders, bearer } from "./tokens.js";
import { layOut, readTypes, rowAt } from "./schema-map.js";

/** The schema's texts: for client tools, and for a gateway's composition. */
const TEXTS = [
  { path: "/schema.graphql?api", file: "schema.graphql", title: "Schema for clients" },
  { path: "/schema.graphql", file: "subgraph.graphql", title: "Schema for federation", missing: "Gateways get this one" },
];
const COLUMNS = 4;

export function SchemaButton() {
  const dialog = useRef(null);
  const [isOpen, setOpen] = useState(false);
  const [read, setRead] = useState({});
  async function open() {
    setOpen(true);
    dialog.current.showModal();
    setRead({});
    try {
      const [api, federation] = await Promise.all(TEXTS.map(({ path }) => readText(path)));
      setRead({ api, federation });
    } catch (error) {
      setRead({ problem: error.message });
    }
  }
  return (
    <>
      <button type="button" className="xp-button" onClick={open}>
        Schema
      </button>
      <dialog ref={dialog} className="xp-dialog xp-schema" aria-label="Schema" onClose={() => setOpen(false)}>
        {isOpen && <Schema read={read} />}
        <form method="dialog" className="xp-schema-close">
          <button className="xp-button">Close</button>
        </form>
      </dialog>
    </>
  );
}

/** The text behind this address, `null` where this account may not have it. */
async function readText(path) {
  const response = await fetch(path, { headers: currentHeaders(bearer()) }).catch(() => {
    throw new NotReached();
  });
  return response.ok ? response.text() : null;
}

function Schema({ read: { api, federation, problem } }) {
  const [search, setSearch] = useState("");
  const text = federation ?? api;
  const { types, domains } = useMemo(() => (text ? readTypes(text) : { types: [], domains: [] }), [text]);
  const wanted = search.trim().toLowerCase();
  if (problem) return <p role="alert">{problem}</p>;
  if (text === undefined) return <p role="status">Reading the schema …</p>;
  if (text === null) return <p role="alert">This account may not read the schema. Sign in as an administrator.</p>;
  return (
    <>
      <div className="xp-schema-head">
        <h2>Schema</h2>
        <label>
          Search <input className="xp-input" type="search" value={search} onChange={({ target }) => setSearch(target.value)} />
        </label>
        {domains.some(Boolean) && (
          <ul className="xp-list xp-domains" aria-label="Domains">
            {domains.map((domain, index) => (
              <li key={domain}>
                <span className={`xp-domain xp-domain-${index % 8}`} aria-hidden="true" /> {domain || "no domain"}
              </li>
            ))}
          </ul>
        )}
        {TEXTS.map(({ file, title, missing }, index) => (
          <button
            key={file}
            type="button"
            className="xp-choice"
            disabled={[api, federation][index] === null}
            title={[api, federation][index] === null ? missing : undefined}
            onClick={() => download(file, [api, federation][index])}
          >
            {title}
            {[api, federation][index] === null && missing && ` · ${missing}`}
          </button>
        ))}
      </div>
      <p role="status" className="xp-hint">
        {wanted && found(types, search.trim())}
      </p>
      <Map types={types} domains={domains} wanted={wanted} />
    </>
  );
}

function found(types, search) {
  const wanted = search.toLowerCase();
  const fields = types.flatMap(({ fields }) => fields.filter(({ name }) => name.toLowerCase().includes(wanted)));
  const named = types.filter(({ name }) => name.toLowerCase().includes(wanted));
  return `“${search}” is in the names of ${count(named.length, "type", "types")} and ${count(fields.length, "field", "fields")}.`;
}

function Map({ types, domains, wanted }) {
  const { boxes, lines, width, height } = useMemo(() => layOut(types, COLUMNS), [types]);
  const [pointed, setPointed] = useState(null);
  const matches = (name) => wanted && name.toLowerCase().includes(wanted);
  const map = useRef(null);
  // The map is larger than what is seen of it.
  useEffect(() => {
    const first = wanted && map.current.querySelector(".xp-name-hit, .xp-field-hit");
    if (first) first.scrollIntoView({ block: "center", inline: "center" });
  }, [wanted, types]);
  const isHit = (type) => !wanted || matches(type.name) || type.fields.some(({ name }) => matches(name));
  return (
    <div ref={map} className="xp-map" tabIndex={0} role="region" aria-label="Map of the types">
      <svg viewBox={`-4 -4 ${width + 60} ${height + 8}`} style={{ minWidth: width * 0.72 }} role="img" aria-labelledby="xp-map-title">
        <title id="xp-map-title">{`${types.length} types and ${lines.length} fields that lead from one to another`}</title>
        {lines.map(({ from, to, field, path }) => (
          <path
            key={`${from}.${field}`}
            className={`xp-line${pointed === from || pointed === to ? " xp-line-on" : ""}`}
            d={path}
          />
        ))}
        {boxes.map(({ type, x, y, width, height }) => (
          <g
            key={type.name}
            transform={`translate(${x} ${y})`}
            className={`xp-box xp-domain-${domains.indexOf(type.domain) % 8}${isHit(type) ? "" : " xp-box-dim"}`}
            onPointerEnter={() => setPointed(type.name)}
            onPointerLeave={() => setPointed(null)}
          >
            <rect width={width} height={height} rx="6" />
            <rect className="xp-box-edge" width="5" height={height} rx="2" />
            <text className={`xp-box-name${matches(type.name) ? " xp-name-hit" : ""}`} x="14" y="19">
              {type.name}
            </text>
            {type.keys.length > 0 && (
              <text className="xp-box-key" x="14" y="36">{`key: ${type.keys.join(", ")}`}</text>
            )}
            {type.fields.map((field, index) => (
              <text
                key={field.name}
                x="14"
                y={rowAt(type, index) + 4}
                className={`xp-field${field.target ? " xp-field-link" : ""}${matches(field.name) ? " xp-field-hit" : ""}`}
              >
                <title>{[field.about, field.deprecated && `Deprecated: ${field.deprecated}`].filter(Boolean).join("\n")}</title>
                <tspan className={field.deprecated ? "xp-deprecated" : undefined}>{field.name}</tspan>
                {field.deprecated && <tspan className="xp-deprecated-mark"> deprecated</tspan>}
                <tspan className="xp-field-type">{` ${field.target ? `→ ${field.target}${field.isList ? "*" : ""}` : field.type}`}</tspan>
              </text>
            ))}
          </g>
        ))}
      </svg>
    </div>
  );
}

function download(file, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/graphql" }));
  Object.assign(document.createElement("a"), { href: address, download: file }).click();
  URL.revokeObjectURL(address);
}
