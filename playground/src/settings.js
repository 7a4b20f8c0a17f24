// What a person has chosen on the page and finds again at the next visit: whether answers are explained, which view of them.
// No token and no request is kept here.

const PREFIX = "xp:";
const listeners = new Set();

/** @returns {string} the value kept under this name, or `otherwise` */
export function read(name, otherwise) {
  return window.localStorage.getItem(PREFIX + name) ?? otherwise;
}

export function write(name, value) {
  window.localStorage.setItem(PREFIX + name, value);
  for (const listener of listeners) listener();
}

/** For `useSyncExternalStore`. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Whether answers are asked to say how they were made. */
export const explains = () => read("explain", "off") === "on";
