// Submissions that have been made and not been stored yet. They are kept in the browser until the server has answered, and sent
// again until then: each has an id of its own (`clientId`), so one that arrives twice is stored once. Used by all four apps.

const MOST_AT_ONCE = 200;
/** Between two attempts where the network is there and no answer came. */
const AGAIN_MS = 3_000;

/**
 * @param {string} key where they are kept
 * @param {(submissions: object[]) => Promise<{userErrors: {code: string}[]}[]>} send stores them; the results in their order.
 *   It throws where there is no answer.
 * @param {(submission: object, userErrors: {message: string}[]) => void} refused what is refused is refused for good, and not sent
 *   again: a person has to look at it
 */
export function createOutbox(key, send, refused) {
  const listeners = new Set();
  let flushing = null;
  const read = () => JSON.parse(localStorage.getItem(key) ?? "[]");
  function write(waiting) {
    localStorage.setItem(key, JSON.stringify(waiting));
    for (const listener of listeners) listener(waiting.length);
  }

  async function flushAll() {
    for (let batch = read(); batch.length; batch = read()) {
      const sent = batch.slice(0, MOST_AT_ONCE);
      const results = await send(sent);
      results.forEach(({ userErrors }, index) => {
        if (userErrors.length) refused(sent[index], userErrors);
      });
      const ids = new Set(sent.map(({ clientId }) => clientId));
      write(read().filter(({ clientId }) => !ids.has(clientId)));
    }
  }

  /** Sends what waits; one attempt at a time. Where there is no answer it stays, and the next attempt has it. */
  function flush() {
    flushing ??= flushAll()
      .catch((error) => {
        console.info("sent later:", error.message);
        // Without a network the event `online` is waited for.
        if (navigator.onLine) setTimeout(flush, AGAIN_MS);
      })
      .finally(() => (flushing = null));
    return flushing;
  }
  window.addEventListener("online", flush);

  return {
    /** Keeps a submission, and tries to send it. */
    add(submission) {
      write([...read(), { clientId: crypto.randomUUID(), ...submission }]);
      return flush();
    },
    flush,
    /** Tells how many wait, now and whenever that changes. */
    watch(listener) {
      listeners.add(listener);
      listener(read().length);
    },
  };
}
