// What the server tells the page at start: where the graph is and which demo accounts it may use. Nothing is kept here.
// Without an answer the page still works, with the usual path and no account.

const DEFAULTS = { endpoint: "/graphql", accounts: [], explains: false };

/**
 * @typedef {object} Config
 * @property {string} endpoint the graph's path
 * @property {boolean} explains whether the server says how an answer was made, if it is asked to
 * @property {{name: string, role: string, token: string, password: string}[]} accounts
 */

/** @returns {Promise<Config>} */
export async function readConfig() {
  try {
    const response = await fetch("/playground/config.json", { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const config = await response.json();
    return {
      endpoint: config.endpoint ?? DEFAULTS.endpoint,
      explains: config.explains === true,
      accounts: Array.isArray(config.accounts) ? config.accounts : DEFAULTS.accounts,
    };
  } catch (error) {
    console.warn("No playground settings, going on without accounts:", error);
    return DEFAULTS;
  }
}
