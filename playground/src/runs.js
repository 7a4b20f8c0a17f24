// What was asked from the page and what came of it: one run for each press of the run button, the newest of each tab. The
// answer bar, the explain panel and the log of events read it; the fetcher writes it. No drawing and no request here.

/** Events that a run keeps, and changes of its connection; older ones go. */
const MOST_EVENTS = 200;
const MOST_CHANGES = 50;

/**
 * @typedef {object} Run
 * @property {"query" | "mutation" | "subscription"} kind
 * @property {boolean} [isLive] whether it is a live query: its events are answers
 * @property {{query: string, variables?: object | object[], operationName?: string}} request
 * @property {Record<string, string>} headers as they were sent, with the token
 * @property {"running" | "done" | "failed" | "connecting" | "listening" | "reconnecting" | "ended"} state
 * @property {number} began `performance.now()`
 * @property {number} [status] of HTTP
 * @property {number} [ms] until the whole answer was there
 * @property {number} [bytes] of the answer, decompressed
 * @property {string} [cache] what the answer's headers say of caches
 * @property {string} [requestId]
 * @property {object} [explain] `extensions.explain` of the answer, or of the event that is looked at
 * @property {{count: number, failed: number}} [sets] of variables: how many were answered, and how many of those have errors
 * @property {{index: number, explain: object}[]} [explains] of the sets of variables that tell how they were answered
 * @property {{number: number, at: Date, ms: number, bytes: number, explain?: object, text: string,
 *   changes?: ReturnType<typeof import("./changes.js").changesBetween>}[]} events those of a live query tell what has changed
 * @property {{number: number, after: number, at: Date, kind: "connected" | "lost", text?: string, downMs?: number}[]} connections
 *   what became of the connection: `after` how many events, and for how long there was none
 * @property {{attempt: number, of: number, at?: number, now?: () => void}} [retry] which attempt to connect again is made; while
 *   it is waited for, when that is (`Date.now()`), and what makes it at once
 * @property {number} received how many events came, those that are not kept included
 */

const runs = new Map();
const listeners = new Set();
let tab = "";
let begun = 0;

/** The tab whose run is looked at. */
export function setTab(id) {
  if (!id || id === tab) return;
  tab = id;
  changed();
}

/** Begins a run in the tab that is open; what it returns changes it. */
export function begin(run) {
  const at = tab;
  let now = { state: "running", began: performance.now(), events: [], connections: [], received: 0, ...run };
  let isSealed = false;
  const put = (next) => {
    if (isSealed) return;
    // A later run has taken its place.
    if (runs.get(at) !== now && runs.has(at) && runs.get(at).began > now.began) return;
    now = next;
    runs.set(at, next);
    changed();
  };
  begun += 1;
  put(now);
  return {
    update: (change) => put({ ...now, ...change }),
    addEvent: (event) => {
      const number = now.received + 1;
      const events = [...now.events, { number, ...event }].slice(-MOST_EVENTS);
      put({ ...now, received: number, events, explain: event.explain });
    },
    /** What comes from now on is too late. */
    seal: () => {
      isSealed = true;
    },
    addConnection: (change) => {
      const number = (now.connections.at(-1)?.number ?? 0) + 1;
      const connections = [...now.connections, { number, after: now.received, ...change }].slice(-MOST_CHANGES);
      put({ ...now, connections });
    },
  };
}

/** @returns {Run | undefined} the newest run of the tab that is open */
export function current() {
  return runs.get(tab);
}

/** How many runs there were, in all tabs. */
export function count() {
  return begun;
}

/** For `useSyncExternalStore`. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  for (const listener of listeners) listener();
}
