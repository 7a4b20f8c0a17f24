// Manifests made by real compilers, published to a running server, and asked by real clients: Apollo Client by the ids
// of its manifest and by automatic persisted queries, urql likewise, Relay and codegen by the ids that their own
// network layers send.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, suite, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { generatePersistedQueryIdsFromManifest } from "@apollo/persisted-query-lists";
import { Client, fetchExchange } from "@urql/core";
import { persistedExchange } from "@urql/exchange-persisted";
import { createHash } from "node:crypto";
import { compile } from "./manifests.mjs";
import { counter, endpoint, token } from "./xp.mjs";

const folder = process.env.XP_DOCUMENTS;
assert.ok(folder, "XP_DOCUMENTS is not set: the folder that the server reads its trusted documents from");

const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const people = "query Ours { users(first: 2) { nodes { id displayName } } }";

let manifests;
let headers;

before(async () => {
  headers = { authorization: `Bearer ${await token()}`, "apollo-require-preflight": "true" };
  manifests = await compile();
  await mkdir(join(folder, "web"), { recursive: true });
  for (const [name, text] of Object.entries(manifests)) await writeFile(join(folder, "web", `${name}.json`), text);
  const loaded = 9; // three operations from each compiler
  for (let attempt = 0; (await counter("persisted_documents_loaded")) < loaded; attempt++) {
    assert.ok(attempt < 100, "the server has not noticed the manifests");
    await wait(100);
  }
});

async function ask(body, path = "") {
  const response = await fetch(endpoint + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  return response.json();
}

suite("manifests", () => {
  test("no document of any compiler is broken", async () => {
    assert.equal(await counter("persisted_documents_broken"), 0);
  });

  test("each document of each compiler runs by its id, and none is prepared again", async () => {
    const operations = [
      ...JSON.parse(manifests.apollo).operations.map(({ id, body }) => [id, body]),
      ...Object.entries(JSON.parse(manifests.relay)),
      ...Object.entries(JSON.parse(manifests.codegen)),
    ];
    assert.equal(operations.length, 9);
    const before = await counter("graphql_documents_prepared_total");
    for (const [documentId, text] of operations) {
      const variables = text.includes("$status") ? { status: "OPEN" } : {};
      const byId = await ask({ documentId, variables });
      assert.equal(byId.errors, undefined, JSON.stringify(byId.errors));
      assert.deepEqual(await ask({ variables }, `/${documentId}`), byId);
      assert.deepEqual(await ask({ documentId, query: text, variables }), byId);
    }
    assert.equal(await counter("graphql_documents_prepared_total"), before);
  });
});

suite("Apollo Client", () => {
  const client = (link) =>
    new ApolloClient({
      cache: new InMemoryCache(),
      link: ApolloLink.from([link, new HttpLink({ uri: endpoint, headers })]),
    });

  test("asks by the ids of its manifest", async () => {
    const manifest = JSON.parse(manifests.apollo);
    const ids = generatePersistedQueryIdsFromManifest({ loadManifest: async () => manifest });
    const before = await counter("persisted_documents_total", 'outcome="id_hit"');
    const apollo = client(new PersistedQueryLink({ ...ids, useGETForHashedQueries: true }));
    for (const { body } of manifest.operations) {
      const { data } = await apollo.query({ query: gql(body), variables: { status: "OPEN" } });
      assert.ok(data);
    }
    assert.equal(await counter("persisted_documents_total", 'outcome="id_hit"'), before + manifest.operations.length);
  });

  test("registers a document by itself, and then asks by its hash", async () => {
    const query = gql(people.replace("Ours", `Apollo${Date.now()}`));
    const outcomes = async () => [
      await counter("persisted_documents_total", 'outcome="apq_miss"'),
      await counter("persisted_documents_total", 'outcome="apq_registered"'),
      await counter("persisted_documents_total", 'outcome="apq_hit"'),
    ];
    const [misses, registered, hits] = await outcomes();
    for (let turn = 0; turn < 3; turn++) {
      const apollo = client(new PersistedQueryLink({ sha256, useGETForHashedQueries: turn > 0 }));
      const { data } = await apollo.query({ query });
      assert.equal(data.users.nodes.length, 2);
    }
    assert.deepEqual(await outcomes(), [misses + 1, registered + 1, hits + 2]);
  });
});

suite("urql", () => {
  const client = (options) =>
    new Client({
      url: endpoint,
      fetchOptions: { headers },
      preferGetMethod: false,
      exchanges: [persistedExchange(options), fetchExchange],
    });

  test("asks by the ids of codegen's manifest", async () => {
    const documents = JSON.parse(manifests.codegen);
    const before = await counter("persisted_documents_total", 'outcome="id_hit"');
    for (const [id, text] of Object.entries(documents)) {
      const urql = client({ enforcePersistedQueries: true, generateHash: async () => id });
      const { data, error } = await urql.query(gql(text), { status: "OPEN" }).toPromise();
      assert.equal(error, undefined);
      assert.ok(data);
    }
    const asked = Object.keys(documents).length;
    assert.equal(await counter("persisted_documents_total", 'outcome="id_hit"'), before + asked);
  });

  test("registers a document by itself, by POST and by GET", async () => {
    for (const preferGetForPersistedQueries of [false, true]) {
      const query = people.replace("Ours", `Urql${Date.now()}`);
      for (let turn = 0; turn < 2; turn++) {
        const { data, error } = await client({ preferGetForPersistedQueries }).query(query, {}).toPromise();
        assert.equal(error, undefined);
        assert.equal(data.users.nodes.length, 2);
      }
    }
  });
});
