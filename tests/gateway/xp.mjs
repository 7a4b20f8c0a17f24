// The running server under test: XP_URL says where it is, XP_TOKEN who asks (else the first account of the playground).
// Not here: starting it.
import assert from "node:assert/strict";

const base = process.env.XP_URL;
assert.ok(base, "XP_URL is not set: start the server and give its address, such as http://127.0.0.1:8080");

export const endpoint = new URL("/graphql", base).href;

export async function token() {
  if (process.env.XP_TOKEN) return process.env.XP_TOKEN;
  const response = await fetch(new URL("/playground/config.json", base));
  assert.ok(response.ok, "XP_TOKEN is not set, and the server offers no demo account");
  return (await response.json()).accounts[0].token;
}

export async function schemaFile() {
  const response = await fetch(new URL("/schema.graphql", base));
  assert.equal(response.status, 200);
  return response.text();
}

/** One operation; the answer as it came, whatever it is. */
export async function ask(url, { query, variables }, headers = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json", ...headers },
    body: JSON.stringify({ query, variables }),
  });
  return response.json();
}

/** One operation as the account of the token; it must succeed. */
export async function askAs(bearer, operation, url = endpoint) {
  const { data, errors } = await ask(url, operation, { authorization: `Bearer ${bearer}` });
  assert.equal(errors, undefined, JSON.stringify(errors));
  return data;
}
