// The ways to ask, as clients send them: urql with its defaults, which asks by GET; the method QUERY by plain fetch; several
// sets of variables, answered by an array or by lines. Not here: what is refused (src/http/tests).
import assert from "node:assert/strict";
import http2 from "node:http2";
import { before, suite, test } from "node:test";
import { Client, fetchExchange, gql } from "@urql/core";
import { endpoint, token } from "./xp.mjs";

const BY_ID = "query ($id: ID!) { user(id: $id) { id displayName } }";
let authorization, ids;

const ask = async (method, body, headers = {}) => {
  const answer = await fetch(endpoint, {
    method,
    headers: { "content-type": "application/json", authorization, ...headers },
    body: JSON.stringify(body),
  });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
};

before(async () => {
  authorization = `Bearer ${await token()}`;
  const { text } = await ask("POST", { query: "{ users(first: 20) { nodes { id } } }" });
  ids = JSON.parse(text).data.users.nodes.map(({ id }) => id);
});

suite("urql with its defaults", () => {
  test("asks by GET, signed in", async () => {
    const methods = [];
    const urql = new Client({
      url: endpoint,
      exchanges: [fetchExchange],
      fetchOptions: () => ({ headers: { authorization } }),
      fetch: (url, options) => (methods.push(options.method), fetch(url, options)),
    });
    const { data, error } = await urql.query(gql(BY_ID), { id: ids[0] }).toPromise();
    assert.equal(error, undefined);
    assert.deepEqual([data.user.id, methods], [ids[0], ["GET"]]);
  });

  test("asks by GET, anonymous, from a page that may ask", async () => {
    const urql = new Client({
      url: endpoint,
      exchanges: [fetchExchange],
      fetchOptions: { headers: { origin: "http://localhost:3000" } },
    });
    const { data, error } = await urql.query(gql("{ __typename }"), {}).toPromise();
    assert.deepEqual([data, error], [{ __typename: "Query" }, undefined]);
  });
});

suite("QUERY", () => {
  test("asks with a body, and its answer is tagged", async () => {
    const asked = { query: "{ __schema { queryType { name } } }" };
    const first = await ask("QUERY", asked);
    assert.equal(JSON.parse(first.text).data.__schema.queryType.name, "Query");
    const again = await ask("QUERY", asked, { "if-none-match": first.headers.get("etag") });
    assert.deepEqual([again.status, again.text], [304, ""]);
  });

  test("runs no mutation, and says so", async () => {
    const refused = await ask("QUERY", { query: "mutation { __typename }" });
    assert.deepEqual([refused.status, refused.headers.get("allow"), refused.headers.get("accept-query")], [405, "POST", "application/json"]);
  });

  test("asks over HTTP/2", async () => {
    const client = http2.connect(new URL(endpoint).origin);
    const stream = client.request({ ":method": "QUERY", ":path": "/graphql", "content-type": "application/json", authorization });
    stream.end(JSON.stringify({ query: BY_ID, variables: { id: ids[0] } }));
    let text = "";
    for await (const part of stream.setEncoding("utf8")) text += part;
    client.close();
    assert.equal(JSON.parse(text).data.user.id, ids[0]);
  });
});

suite("several sets of variables", () => {
  const request = () => ({ query: BY_ID, variables: ids.map((id) => ({ id })) });

  for (const method of ["POST", "QUERY"]) {
    test(`are answered by an array to ${method}`, async () => {
      const { status, text } = await ask(method, request());
      const answers = JSON.parse(text);
      assert.equal(status, 200);
      assert.deepEqual(answers.map(({ variableIndex, data }) => [variableIndex, data.user.id]), [...ids.entries()]);
    });

    test(`are answered by lines to ${method}`, async () => {
      const { headers, text } = await ask(method, request(), { accept: "application/jsonl" });
      const lines = text.trimEnd().split("\n").map((line) => JSON.parse(line));
      assert.match(headers.get("content-type"), /^application\/jsonl/);
      assert.deepEqual(lines.map(({ variableIndex, data }) => [variableIndex, data.user.id]), [...ids.entries()]);
    });
  }
});
