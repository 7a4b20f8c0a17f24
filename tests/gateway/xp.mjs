// The running server under test: XP_URL says where it is. Its demo accounts are who asks, one of each role. Not here:
// starting it.
import assert from "node:assert/strict";

export const base = process.env.XP_URL;
assert.ok(base, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8080");

export const endpoint = new URL("/graphql", base).href;

/** Access tokens of the demo accounts, by role. */
export async function tokens(of = base) {
  const response = await fetch(new URL("/playground/config.json", of));
  assert.ok(response.ok, "the server offers no demo accounts: is this a development server?");
  const { accounts } = await response.json();
  return Object.fromEntries(accounts.map(({ role, token }) => [role, token]));
}

export async function schemaFile(of = base) {
  const response = await fetch(new URL("/schema.graphql", of));
  assert.equal(response.status, 200);
  return response.text();
}

/** One operation; the answer as it came, whatever it is. */
export async function ask(url, { query, variables, operationName }, headers = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", ...headers },
    body: JSON.stringify({ query, variables, operationName }),
  });
  return response.json();
}

export const bearer = (token) => (token === undefined ? {} : { authorization: `Bearer ${token}` });

/** One operation as the account of the token; it must succeed. */
export async function askAs(token, operation, url = endpoint) {
  const { data, errors } = await ask(url, operation, bearer(token));
  assert.equal(errors, undefined, JSON.stringify(errors));
  return data;
}
