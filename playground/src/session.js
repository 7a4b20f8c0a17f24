// Signing in from the page: the mutations and the one query behind the account dialog. Tokens stay in memory. While the
// page is reloaded, and only then, the refresh token lies in the tab's `sessionStorage`: a tab that is duplicated has none,
// or both would use the same one and the server would end the session. Passwords are sent and forgotten. It draws nothing.
import { query as ask } from "./fetcher.js";

/** Where the refresh token lies during a reload. */
const KEPT = "xp:session";

const TOKENS = `accessToken accessTokenExpiresAt refreshToken session { id } user { email role } userErrors { message }`;

const SIGN_IN = `mutation PlaygroundSignIn($input: SignInInput!) { signIn(input: $input) { ${TOKENS} } }`;
const REFRESH = `mutation PlaygroundRefresh($input: RefreshSessionInput!) { refreshSession(input: $input) { ${TOKENS} } }`;
const SIGN_OUT = `mutation PlaygroundSignOut { signOut { userErrors { message } } }`;
const SESSIONS = `query PlaygroundSessions { me { sessions(first: 100, activeOnly: true) { nodes {
  id name userAgent ipAddress createdAt lastActivity isCurrent } } } }`;
const REVOKE = `mutation PlaygroundRevoke($input: RevokeSessionInput!) {
  revokeSession(input: $input) { session { id isActive } userErrors { message } } }`;

/** @typedef {{name: string, role: string, token: string, refreshToken: string, expiresAt: number}} SignedIn */

/** @returns {Promise<SignedIn>} */
export async function signIn(endpoint, { email, password }) {
  const input = { email, password, sessionName: "Playground" };
  return granted((await ask(endpoint, {}, SIGN_IN, { input })).signIn);
}

/** The same account with its next tokens. */
export async function refresh(endpoint, { refreshToken }) {
  return granted((await ask(endpoint, {}, REFRESH, { input: { refreshToken } })).refreshSession);
}

/** Has the account found again after a reload of this tab: call it with who is signed in, whenever that changes. */
let signedInNow = null;
export function keepOverReload(signedIn) {
  signedInNow = signedIn;
}
window.addEventListener("pagehide", () => {
  if (signedInNow) window.sessionStorage.setItem(KEPT, signedInNow.refreshToken);
});
window.addEventListener("pageshow", () => window.sessionStorage.removeItem(KEPT));

/** Who was signed in before this tab was reloaded, with new tokens; null where nobody was, or the session has ended. */
export async function restore(endpoint) {
  const refreshToken = window.sessionStorage.getItem(KEPT);
  window.sessionStorage.removeItem(KEPT);
  if (!refreshToken) return null;
  try {
    return await refresh(endpoint, { refreshToken });
  } catch {
    return null;
  }
}

export async function signOut(endpoint, account) {
  await ask(endpoint, bearer(account), SIGN_OUT);
}

/** The account's live sessions, newest first. */
export async function liveSessions(endpoint, account) {
  const { me } = await ask(endpoint, bearer(account), SESSIONS);
  if (!me) throw new Error("The session has ended; sign in again.");
  return me.sessions.nodes;
}

export async function revokeSession(endpoint, account, id) {
  const { revokeSession: payload } = await ask(endpoint, bearer(account), REVOKE, { input: { id } });
  complainOf(payload.userErrors);
}

function granted(payload) {
  complainOf(payload.userErrors);
  return {
    name: payload.user.email,
    role: payload.user.role,
    token: payload.accessToken,
    refreshToken: payload.refreshToken,
    expiresAt: Date.parse(payload.accessTokenExpiresAt),
  };
}

function complainOf(userErrors) {
  if (userErrors.length) throw new Error(userErrors.map(({ message }) => message).join(" "));
}

function bearer({ token }) {
  return { Authorization: `Bearer ${token}` };
}
