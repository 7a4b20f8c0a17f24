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

/** Keeps an operation; one of the same name goes. */
export function save(operation) {
  const name = operation.name.trim().slice(0, LONGEST_NAME);
  if (!name) throw new Error("Give the operation a name.");
  put([...all().filter((other) => other.name !== name), { ...operation, name }]);
}

export function remove(name) {
  put(all().filter((other) => other.name !== name));
}

/** The text of a file with all operations. */
export function exported() {
  return `${JSON.stringify({ operations: all() }, null, 2)}\n`;
}

/** Adds the operations of such a file; says how many. Those of the same name go. */
export function importFrom(text) {
  const operations = checked(JSON.parse(text)?.operations);
  const names = new Set(operations.map(({ name }) => name));
  put([...all().filter(({ name }) => !names.has(name)), ...operations]);
  return operations.length;
}

function put(operations) {
  const sorted = [...operations].sort((a, b) => a.name.localeCompare(b.name));
  settings.write(NAME, JSON.stringify(sorted));
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
  return operations.map(({ name, query, variables }) => ({
    name: name.trim().slice(0, LONGEST_NAME),
    query,
    variables: typeof variables === "string" ? variables : "",
  }));
}
