// Signing in from the page: the mutations and the one query behind the account dialog. Tokens stay in memory and end
// with the page; passwords are sent and forgotten. It draws nothing.
import { ask } from "./fetcher.js";

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
