// The browser's two storages for this page, as the page can always use them: where one is blocked or full, what it does not
// take is kept in memory until the page is closed. What is kept, and under which names, is decided by those who use it.

/** Why a value is not kept for longer than the page is open. */
export const FULL = "This browser's storage for the page is full.";
export const BLOCKED = "This browser stores nothing for the page.";

export const local = withMemory("localStorage");
export const session = withMemory("sessionStorage");

/** GraphiQL uses the browser's own by itself, and knows what to do when it is full; it needs another where that is blocked. */
export const forGraphiQL = local.isBlocked ? local : undefined;

function withMemory(name) {
  const storage = usable(name);
  const memory = new Map();
  return {
    isBlocked: storage === null,
    getItem(key) {
      if (memory.has(key)) return memory.get(key);
      return storage?.getItem(key) ?? null;
    },
    /** @returns {string | undefined} why it is in memory only */
    setItem(key, value) {
      try {
        storage?.setItem(key, value);
      } catch {
        memory.set(key, value);
        return FULL;
      }
      if (storage) {
        memory.delete(key);
        return undefined;
      }
      memory.set(key, value);
      return BLOCKED;
    },
    removeItem(key) {
      memory.delete(key);
      storage?.removeItem(key);
    },
    get length() {
      return memory.size;
    },
    clear() {
      memory.clear();
    },
  };
}

/** Where cookies are blocked, even to name the storage is an error; null then. */
function usable(name) {
  try {
    const storage = window[name];
    storage.getItem("");
    return storage;
  } catch {
    return null;
  }
}
