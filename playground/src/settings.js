// What a person has chosen on the page and finds again at the next visit: whether answers are explained, which view of them.
// No token and no request is kept here; where it is kept is in storage.js.
import { local } from "./storage.js";

const PREFIX = "xp:";
const listeners = new Set();

/** @returns {string} the value kept under this name, or `otherwise` */
export function read(name, otherwise) {
  return local.getItem(PREFIX + name) ?? otherwise;
}

/** @returns {string | undefined} why it will not be found at the next visit */
export function write(name, value) {
  const problem = local.setItem(PREFIX + name, value);
  for (const listener of listeners) listener();
  return problem;
}

/** For `useSyncExternalStore`. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Whether answers are asked to say how they were made. */
export const explains = () => read("explain", "off") === "on";
