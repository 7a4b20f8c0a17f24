// GraphQL over HTTP by the book: all audits of the package graphql-http, those that say MAY and SHOULD included, on
// plain and compressed answers.
import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { serverAudits } from "graphql-http";
import { endpoint } from "./xp.mjs";

const AUDITS = 61;

/** Asks as a page of this server would: GET needs a header that a foreign page cannot send. */
function asking(encoding) {
  return async (url, options = {}) => {
    const headers = new Headers(options.headers);
    headers.set("accept-encoding", encoding);
    headers.set("apollo-require-preflight", "true");
    return fetch(url, { ...options, headers });
  };
}

for (const encoding of ["identity", "gzip", "br"]) {
  suite(`answers in ${encoding}`, () => {
    const audits = serverAudits({ url: endpoint, fetchFn: asking(encoding) });
    test("all audits are there", () => assert.equal(audits.length, AUDITS));
    for (const audit of audits) {
      test(`${audit.id} ${audit.name}`, async () => {
        const result = await audit.fn();
        assert.equal(result.status, "ok", `${result.status}: ${result.reason}`);
      });
    }
  });
}
