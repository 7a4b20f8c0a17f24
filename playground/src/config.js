// What the server tells the page at start: where the graph is and which demo accounts it may use. Nothing is kept here.
// Without an answer the page still works, with the usual path and no account.

const DEFAULTS = { endpoint: "/graphql", accounts: [] };

/** @returns {Promise<{endpoint: string, accounts: {name: string, role: string, token: string, password: string}[]}>} */
export async function readConfig() {
  try {
    const response = await fetch("/playground/config.json", { headers: { accept: "application/json" } });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const config = await response.json();
    return {
      endpoint: config.endpoint ?? DEFAULTS.endpoint,
      accounts: Array.isArray(config.accounts) ? config.accounts : DEFAULTS.accounts,
    };
  } catch (error) {
    console.warn("No playground settings, going on without accounts:", error);
    return DEFAULTS;
  }
}
