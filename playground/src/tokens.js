// Which bearer tokens are the page's own: those of the chosen account, past ones included. A token that a person has typed
// is theirs, and stays as it is. Kept in memory only.

const ours = new Set();
let current = "";

/** The tokens of these accounts are ours from now on; `account` is the chosen one. */
export function setTokens(accounts, account) {
  for (const { token } of accounts) ours.add(token);
  current = account?.token ?? "";
}

/** Whether these headers have no token but one of ours. */
export function isOurs(headers) {
  const value = headers.Authorization;
  return value === undefined || (value.startsWith("Bearer ") && ours.has(value.slice("Bearer ".length)));
}

/** The headers with the account's token of now in the place of one of ours, which may have run out. */
export function currentHeaders(headers) {
  const { Authorization: value, ...others } = headers;
  if (value === undefined || !isOurs(headers)) return headers;
  return current ? { ...others, Authorization: `Bearer ${current}` } : others;
}

/** The header of the chosen account, for what the page asks by itself. */
export function bearer() {
  return current ? { Authorization: `Bearer ${current}` } : {};
}
