// Signing in from the page: the mutations and the one query behind the account dialog. Tokens stay in memory. While the
// page is reloaded, until the next tokens are there, the refresh token lies in the tab's `sessionStorage`, and at no other time:
// a tab that is duplicated has none, or both would use the same one and the server would end the session. Passwords are sent
// and forgotten. It draws nothing; when tokens are exchanged is in renewal.js.
import { query as ask } from "./fetcher.js";
import { session as storage } from "./storage.js";

/** Where the refresh token lies during a reload, and whose it is. */
const KEPT = "xp:session";

const TOKENS = `accessToken accessTokenExpiresAt refreshToken session { id } user { email role } userErrors { message }`;

const SIGN_IN = `mutation PlaygroundSignIn($input: SignInInput!) { signIn(input: $input) { ${TOKENS} } }`;
const REFRESH = `mutation PlaygroundRefresh($input: RefreshSessionInput!) { refreshSession(input: $input) { ${TOKENS} } }`;
const SIGN_OUT = `mutation PlaygroundSignOut { signOut { userErrors { message } } }`;
const SESSIONS = `query PlaygroundSessions { me { sessions(first: 100, activeOnly: true) { nodes {
  id name userAgent ipAddress createdAt lastActivity isCurrent } } } }`;
const REVOKE = `mutation PlaygroundRevoke($input: RevokeSessionInput!) {
  revokeSession(input: $input) { session { id isActive } userErrors { message } } }`;

/** @typedef {{name: string, role: string, token: string, refreshToken: string, expiresAt: number, problem?: Error}} SignedIn */

/** @returns {Promise<SignedIn>} */
export async function signIn(endpoint, { email, password }) {
  const input = { email, password, sessionName: "Playground" };
  return granted((await ask(endpoint, {}, SIGN_IN, { input })).signIn);
}

/**
 * The same account with its next tokens. The old token is let go only once the server has answered: a page that is left before
 * that finds it again, and the server takes it a second time within 10 seconds.
 */
export async function refresh(endpoint, { refreshToken }) {
  const isStillWanted = () => signedInNow?.refreshToken === refreshToken;
  try {
    const next = granted((await ask(endpoint, {}, REFRESH, { input: { refreshToken } })).refreshSession);
    if (isStillWanted()) forgetKept(next);
    return next;
  } catch (error) {
    if (isRefusal(error) && isStillWanted()) forgetKept(null);
    throw error;
  }
}

function forgetKept(signedIn) {
  signedInNow = signedIn;
  storage.removeItem(KEPT);
}

/** Whether the server has said no, and not only failed to answer. */
export function isRefusal(error) {
  return error instanceof Refused || error.code === "UNAUTHENTICATED";
}

/** What `userErrors` say. */
class Refused extends Error {}

/** Has the account found again after a reload of this tab: call it with who is signed in, whenever that changes. */
let signedInNow = null;
export function keepOverReload(signedIn) {
  signedInNow = signedIn;
  if (!signedIn) storage.removeItem(KEPT);
}
window.addEventListener("pagehide", () => {
  if (!signedInNow) return;
  const { name, role, refreshToken } = signedInNow;
  storage.setItem(KEPT, JSON.stringify({ name, role, refreshToken }));
});
// The browser may show a page again as it was, with what it had in memory. One that waits for its tokens keeps the old.
window.addEventListener("pageshow", ({ persisted }) => {
  if (persisted && signedInNow?.token) storage.removeItem(KEPT);
});

/**
 * Who was signed in before this tab was reloaded, with new tokens; null where nobody was, or the session has ended. Where the
 * server does not say, the account has no access token, and `problem` says why.
 */
export async function restore(endpoint) {
  const account = kept();
  if (!account) return null;
  signedInNow = account;
  try {
    return await refresh(endpoint, account);
  } catch (problem) {
    return isRefusal(problem) ? null : { ...account, problem };
  }
}

function kept() {
  try {
    const { name, role, refreshToken } = JSON.parse(storage.getItem(KEPT));
    return { name, role, refreshToken, token: "", expiresAt: 0 };
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
  if (userErrors.length) throw new Refused(userErrors.map(({ message }) => message).join(" "));
}

function bearer({ token }) {
  return { Authorization: `Bearer ${token}` };
}
