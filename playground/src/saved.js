// The operations that a person keeps in this browser under names of their own, and their form as a file. No headers and no
// tokens are kept. No drawing here.
import * as settings from "./settings.js";

const NAME = "operations";
const LONGEST_NAME = 100;

/** @typedef {{name: string, query: string, variables: string}} Saved */

let cached = { text: null, saved: [] };

/** @returns {Saved[]} by name; the same array as long as nothing changes */
export function all() {
  const text = settings.read(NAME, "[]");
  if (cached.text !== text) cached = { text, saved: readAll(text) };
  return cached.saved;
}

export const subscribe = settings.subscribe;

/** Keeps an operation; one of the same name goes. What it returns is to be said of that. */
export function save(operation) {
  const name = operation.name.trim().slice(0, LONGEST_NAME);
  if (!name) throw new Error("Give the operation a name.");
  const others = all().filter((other) => other.name !== name);
  const done = others.length < all().length ? `Replaced “${name}”.` : "";
  return `${done} ${put([...others, { ...operation, name }])}`.trim();
}

export function remove(name) {
  put(all().filter((other) => other.name !== name));
}

/** The text of a file with all operations. */
export function exported() {
  return `${JSON.stringify({ operations: all() }, null, 2)}\n`;
}

/** Adds the operations of such a file. Those of the same name go. What it returns is to be said of that. */
export function importFrom(text) {
  const operations = checked(parsed(text)?.operations);
  const names = new Set(operations.map(({ name }) => name));
  const problem = put([...all().filter(({ name }) => !names.has(name)), ...operations]);
  const done = operations.length === 1 ? "1 operation was read." : `${operations.length} operations were read.`;
  return `${done} ${problem}`.trim();
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("This is not a file of operations: it is not JSON.");
  }
}

/** Says it where they will not be there at the next visit. */
function put(operations) {
  const sorted = [...operations].sort((a, b) => a.name.localeCompare(b.name));
  const problem = settings.write(NAME, JSON.stringify(sorted));
  return problem ? `${problem} What you save is here until the page is closed; export it to keep it.` : "";
}

function readAll(text) {
  try {
    return checked(JSON.parse(text));
  } catch {
    return [];
  }
}

function checked(operations) {
  const isOne = (one) => [one?.name, one?.query].every((text) => typeof text === "string" && text.trim());
  if (!Array.isArray(operations) || !operations.every(isOne)) {
    throw new Error("This is not a file of operations: expected an object with a list `operations`.");
  }
  const named = new Map();
  for (const { name: written, query, variables } of operations) {
    const name = written.trim().slice(0, LONGEST_NAME);
    // Of two with one name the later is meant, as when one is saved after the other.
    named.set(name, { name, query, variables: typeof variables === "string" ? variables : "" });
  }
  return [...named.values()];
}
