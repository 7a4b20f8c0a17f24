// Clients in web pages of other origins, as they come: urql, which asks by GET where it can, and what is kept of its
// answers. Pages of localhost may ask a development server. Not here: a real browser (tests/browser).
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { Client, fetchExchange, gql } from "@urql/core";
import { endpoint, token } from "./xp.mjs";

const PAGE = "http://localhost:3000";
const FOREIGN = "https://evil.example";

/** urql with its defaults, in a page of this origin; `sent` has what it asked with. */
function urql(origin, headers = {}) {
  const sent = [];
  const send = async (address, options) => {
    const response = await fetch(address, { ...options, headers: { ...options.headers, origin } });
    sent.push({ method: options.method ?? "GET", status: response.status, headers: response.headers });
    return response;
  };
  const client = new Client({ url: endpoint, exchanges: [fetchExchange], fetch: send, fetchOptions: { headers } });
  return { client, sent };
}

suite("urql with its defaults", () => {
  test("asks by GET from an origin that may", async () => {
    const { client, sent } = urql(PAGE);
    const { data, error } = await client.query(gql`{ users(first: 1) { nodes { id } } }`, {}).toPromise();
    assert.equal(error, undefined);
    assert.deepEqual(data.users.nodes, []);
    assert.deepEqual([sent[0].method, sent[0].status], ["GET", 200]);
    assert.equal(sent[0].headers.get("access-control-allow-origin"), PAGE);
    assert.match(sent[0].headers.get("vary"), /\borigin\b/);
  });

  test("asks by GET with a token, and writes by POST", async () => {
    const { client, sent } = urql(PAGE, { authorization: `Bearer ${await token()}` });
    const { data } = await client.query(gql`{ me { role } }`, {}).toPromise();
    assert.equal(data.me.role, "ADMIN");
    const written = await client.mutation(gql`mutation { signOut { userErrors { code } } }`, {}).toPromise();
    assert.equal(written.error?.networkError, undefined);
    assert.deepEqual(sent.map(({ method }) => method), ["GET", "POST"]);
  });

  test("is told why from an origin that may not", async () => {
    const { client, sent } = urql(FOREIGN);
    const { error } = await client.query(gql`{ users(first: 1) { nodes { id } } }`, {}).toPromise();
    assert.equal(error.graphQLErrors[0].extensions.code, "CSRF_PREVENTION");
    assert.equal(sent[0].headers.get("access-control-allow-origin"), null);
  });
});

test("a preflight with the headers of monitoring tools is let through, one of a foreign page is told the setting", async () => {
  const ask = (origin) =>
    fetch(endpoint, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,baggage,content-type,sentry-trace,x-datadog-trace-id",
      },
    });
  const allowed = await ask(PAGE);
  assert.deepEqual([allowed.status, allowed.headers.get("access-control-allow-origin")], [204, PAGE]);
  for (const name of ["baggage", "sentry-trace", "x-datadog-trace-id"]) {
    assert.ok(allowed.headers.get("access-control-allow-headers").includes(name), name);
  }
  const refused = await ask(FOREIGN);
  assert.equal(refused.status, 403);
  assert.match((await refused.json()).errors[0].message, /http\.cors_origins/);
});
