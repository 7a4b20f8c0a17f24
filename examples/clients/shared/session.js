// Who is signed in: two tokens, of which the access token is made anew shortly before it expires. Used by all four apps; each
// asks for `token()` wherever its library sends a request or opens a connection. Not here: how a library asks.
import documents from "../generated/session.json";

/** How long before its end an access token is not used any more. */
const EARLY_MS = 20_000;

/** @param {string} endpoint the graph's address */
export function createSession(endpoint) {
  let tokens = null;
  let refreshing = null;

  /** Sends a document of this file by its id: a server that takes published documents only runs it, too. */
  async function send(name, input) {
    const response = await fetch(endpoint, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ documentId: documents[name].id, variables: { input } }),
    });
    const { data, errors } = await response.json();
    if (!data) throw new Error(errors[0].message);
    const [payload] = Object.values(data);
    if (payload.userErrors.length) throw new Error(payload.userErrors[0].message);
    return payload;
  }

  function keep(payload) {
    tokens = {
      access: payload.accessToken,
      refresh: payload.refreshToken,
      expiresAt: Date.parse(payload.accessTokenExpiresAt),
      name: payload.user.displayName,
    };
    return tokens;
  }

  /** One exchange at a time: a refresh token is good once, and many requests may find the access token old at the same time. */
  function refresh() {
    refreshing ??= send("RefreshSession", { refreshToken: tokens.refresh })
      .then(keep)
      .finally(() => (refreshing = null));
    return refreshing;
  }

  return {
    /** Signs in; says who it is. */
    async signIn(email, password) {
      return keep(await send("SignIn", { email, password, sessionName: "Example app" })).name;
    },
    /** A token that is good for a while yet; `null` where nobody is signed in. */
    async token() {
      if (tokens && tokens.expiresAt - EARLY_MS < Date.now()) await refresh();
      return tokens?.access ?? null;
    },
    /** The token was refused before its time: the next one is another. */
    async renew() {
      if (tokens) await refresh();
    },
    get isSignedIn() {
      return tokens !== null;
    },
  };
}
