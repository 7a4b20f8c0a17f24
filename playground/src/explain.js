// `extensions.explain` as rows to draw: what ran for an answer, in the order in which it began, with each batch's statements
// and cache reads beside it. Pure: no drawing, no request. Times are milliseconds from the start of the request.

/**
 * @typedef {object} Row
 * @property {"document" | "level" | "batch" | "statement" | "resolver"} kind
 * @property {string} label
 * @property {number} startMs
 * @property {number} ms
 * @property {number} level by which statements and batches hang together; 0 outside of all levels
 * @property {number} [statement] place in `explain.sql`
 * @property {object} [batch] as in `explain.batches`, with its `cache`
 * @property {number} [waitedMs] of a batch: how much of its time it waited for batches of other requests
 */

/** @returns {{rows: Row[], spanMs: number}} */
export function waterfall(explain) {
  const before = explain.document?.ms ?? 0;
  const rows = [];
  if (explain.document) rows.push(documentRow(explain.document));
  const batches = explain.batches.map((batch, index) => ({ ...batch, index, statements: [] }));
  assignCache(batches, explain.cache);
  const alone = [];
  explain.sql.forEach((sql, index) => {
    const statement = { ...sql, index };
    const owner = ownerOf(statement, batches);
    (owner?.statements ?? alone).push(statement);
  });
  const items = [
    ...batches.map((batch) => ({ batch, at: batch.startMs })),
    ...alone.map((sql) => ({ sql, at: sql.startMs })),
    ...(explain.resolvers ?? []).map((resolver) => ({ resolver, at: resolver.startMs })),
  ];
  let level = 0;
  for (const { batch, sql, resolver } of sortedByTime(items)) {
    if (resolver) {
      const { field: label, startMs, ms } = resolver;
      rows.push({ kind: "resolver", label, startMs: before + startMs, ms, level: 0, resolver });
      continue;
    }
    if (sql) {
      rows.push(statementRow(sql, before, 0));
      continue;
    }
    if (batch.level !== level) {
      level = batch.level;
      rows.push(levelRow(level, batches, before));
    }
    rows.push(batchRow(batch, before, level));
    for (const statement of batch.statements) rows.push(statementRow(statement, before, level));
  }
  const ends = rows.map(({ startMs, ms }) => startMs + ms);
  return { rows, spanMs: Math.max(before + explain.totalMs, ...ends) };
}

/** What was begun together stays together, however close the next one came; statements of no batch come where they ran. */
function sortedByTime(items) {
  const levels = new Map();
  for (const { batch } of items) {
    if (batch) levels.set(batch.level, Math.min(levels.get(batch.level) ?? Infinity, batch.startMs));
  }
  const key = ({ batch, at }) => (batch ? levels.get(batch.level) : at);
  return [...items].sort((a, b) => key(a) - key(b) || a.at - b.at);
}

function documentRow({ known, ms }) {
  return { kind: "document", label: known ? "Known document" : "Parse and validate", startMs: 0, ms, level: 0, known };
}

function levelRow(level, batches, before) {
  const own = batches.filter((batch) => batch.level === level);
  const start = Math.min(...own.map(({ startMs }) => startMs));
  const end = Math.max(...own.map(({ startMs, ms }) => startMs + ms));
  return { kind: "level", label: `Level ${level}`, startMs: before + start, ms: end - start, level, count: own.length };
}

function batchRow(batch, before, level) {
  const { loader: label, startMs, ms, queuedMs: waitedMs } = batch;
  return { kind: "batch", label, startMs: before + startMs, ms, level, batch, waitedMs };
}

/** Who a batch waited for: the batches whose end let it begin, and other requests whose batches went first or shared its read. */
export function describeWait({ after = [], requests, queuedMs }, { batches }) {
  const counts = new Map();
  for (const { loader } of after.map((place) => batches[place])) counts.set(loader, (counts.get(loader) ?? 0) + 1);
  const names = [...counts].map(([loader, count]) => (count > 1 ? `${count} × ${loader}` : loader));
  return [
    names.length > 0 && `after ${names.join(", ")}`,
    queuedMs > 0 && `waited ${milliseconds(queuedMs)} for other requests`,
    requests > 1 && `read together with ${count(requests - 1, "other request", "other requests")}`,
  ].filter(Boolean);
}

function statementRow(sql, before, level) {
  return { kind: "statement", label: sql.name, startMs: before + sql.startMs, ms: sql.ms, level, statement: sql.index, sql };
}

/** The batch that a statement ran for: of its name, and under way when the statement began. */
function ownerOf(sql, batches) {
  const covers = ({ startMs, ms }) => startMs <= sql.startMs + 0.01 && sql.startMs <= startMs + ms;
  const under = batches.filter(covers);
  const domain = (name) => name.split(".")[0];
  return (
    under.find(({ loader }) => loader === sql.name) ??
    under.find(({ loader }) => domain(loader) === domain(sql.name)) ??
    batches.find(({ loader }) => loader === sql.name)
  );
}

/** Reads come in the order of the batches of one name; the first tier is asked for all keys, and begins the next batch. */
function assignCache(batches, reads) {
  for (const batch of batches) batch.cache = [];
  const queues = new Map();
  for (const batch of batches) queues.set(batch.loader, [...(queues.get(batch.loader) ?? []), batch]);
  for (const read of reads) {
    const queue = queues.get(read.of);
    if (!queue) continue;
    const asked = Object.values(read.keys).reduce((sum, count) => sum + count, 0);
    const next = queue.find((batch) => batch.cache.every(({ tier }) => tier !== read.tier) && asked <= batch.keys);
    (next ?? queue[0]).cache.push(read);
  }
}

/** The figures above the rows. */
export function totals(explain, run) {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const hits = sum(explain.cache.map(({ keys }) => keys.hit ?? 0));
  // Only the first tier is asked for every key.
  const asked = sum(explain.cache.filter(({ tier }) => tier === "local").map(({ keys }) => sum(Object.values(keys))));
  return [
    ...(run?.sets ? [{ name: "Variable sets", value: String(run.sets.count) }] : []),
    { name: "Statements", value: String(explain.sql.length) },
    { name: "Rows", value: String(sum(explain.sql.map(({ rows }) => rows))) },
    { name: "Cache hits", value: asked ? `${hits} of ${asked}` : String(hits) },
    { name: "Deduplicated", value: String(explain.deduplicated) },
    { name: "Server time", value: milliseconds(explain.totalMs + (explain.document?.ms ?? 0)) },
    { name: "Answer", value: run ? size(run) : "" },
    { name: "Cost", value: `${explain.cost} of ${explain.maxCost}` },
  ].filter(({ value }) => value);
}

function size({ bytes, events }) {
  const of = events?.at(-1)?.bytes ?? bytes;
  return of === undefined ? "" : formatBytes(of);
}

/** What the cache said, such as "local: 3 hit, 1 absent". */
export function describeCache(reads) {
  return reads.map(({ tier, keys }) => {
    const counts = Object.entries(keys).sort(([a], [b]) => (a === "hit" ? -1 : b === "hit" ? 1 : a.localeCompare(b)));
    return `${tier}: ${counts.map(([what, count]) => `${count} ${what}`).join(", ")}`;
  });
}

export function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

export function milliseconds(ms) {
  if (ms >= 100) return `${Math.round(ms)} ms`;
  return `${ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

export function formatBytes(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
