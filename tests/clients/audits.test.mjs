// GraphQL over HTTP by the book: all audits of the package graphql-http, those that say MAY and SHOULD included: as they
// come, by GET wherever a query string can say the same, and with everything compressed, requests and answers.
import assert from "node:assert/strict";
import { after, before, suite, test } from "node:test";
import { gzipSync } from "node:zlib";
import { serverAudits } from "graphql-http";
import { start } from "../live/xp.mjs";
import { endpoint } from "./xp.mjs";

const AUDITS = 61;

/** Asks as a page of this server would: GET needs a header that a foreign page cannot send. */
function ask(url, options, encoding) {
  const headers = new Headers(options.headers);
  headers.set("accept-encoding", encoding);
  headers.set("apollo-require-preflight", "true");
  return fetch(url, { ...options, headers });
}

/** The same question as a query string, where it is one: a query and a name are texts there, whatever they were. */
function asGet(url, { method, headers, body }) {
  if (method !== "POST" || !body || !headers?.["content-type"]?.startsWith("application/json")) return undefined;
  let said;
  try {
    said = JSON.parse(body);
  } catch {
    return undefined;
  }
  const { query, operationName, ...values } = said;
  const isText = (value) => value == null || typeof value === "string";
  if (!isText(query) || !isText(operationName)) return undefined;
  const address = new URL(url);
  for (const [name, value] of Object.entries({ query, operationName })) if (value) address.searchParams.set(name, value);
  for (const [name, value] of Object.entries(values)) address.searchParams.set(name, JSON.stringify(value));
  return [address.href, { headers: headers.accept ? { accept: headers.accept } : {} }];
}

/** Runs all audits. */
function audits(url, fetchFn) {
  const all = serverAudits({ url, fetchFn });
  test("all audits are there", () => assert.equal(all.length, AUDITS));
  for (const audit of all) {
    test(`${audit.id} ${audit.name}`, async () => {
      const result = await audit.fn();
      assert.equal(result.status, "ok", `${result.status}: ${result.reason}`);
    });
  }
}

suite("as they come", () => audits(endpoint, (url, options = {}) => ask(url, options, "identity")));

suite("by GET", () => {
  let asked = 0;
  audits(endpoint, (url, options = {}) => {
    const get = asGet(url, options);
    if (get) asked++;
    return ask(...(get ?? [url, options]), "identity");
  });
  after(() => assert.ok(asked >= 40, `${asked} of ${AUDITS} were asked by GET`));
});

for (const encoding of ["gzip", "br"]) {
  suite(`compressed, answers in ${encoding}`, () => {
    let server, compressed = 0;
    before(async () => {
      server = await start({ XP_HTTP_COMPRESS_FROM: "1" });
    });
    audits(() => server.url, async (url, { body, ...options } = {}) => {
      const packed = body && { body: gzipSync(body), headers: { ...options.headers, "content-encoding": "gzip" } };
      const response = await ask(url, { ...options, ...packed }, encoding);
      if (response.headers.get("content-encoding") === encoding) compressed++;
      return response;
    });
    after(async () => {
      await server.stop();
      assert.ok(compressed >= 55, `${compressed} answers were compressed`);
    });
  });
}
