// What a gateway must carry besides the operation: from where and with what a client asks, and both ways the token of what it
// has written, so that what it reads next is not older, on whatever instance. Before two instances that are asked in turn.
// Not here: what operations answer (gateway.test.mjs).
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { after, before, describe, test } from "node:test";
import { compose } from "./compose.mjs";
import { names, startGateway } from "./gateways.mjs";
import { startInstances } from "./instances.mjs";
import { ask, askAs, bearer, schemaFile, tokens } from "./xp.mjs";

const PASSWORD = "xp-graph-demo";
const SIGN_IN = `mutation ($input: SignInInput!) { signIn(input: $input) {
  session { ipAddress userAgent } userErrors { code } } }`;
const RENAME = "mutation ($name: String!) { updateProfile(input: { displayName: $name }) { user { displayName } } }";
const WRITES = 100;

/** Passes on neither headers nor extensions of an answer. */
const silent = ["grafbase"];

const instances = await startInstances({ XP_HTTP_TRUSTED_PROXIES: "127.0.0.1" });
const token = await tokens(instances.servers[0]);
const { me } = await askAs(token.EDITOR, { query: "{ me { email } }" }, instances.url);
let scratch;
let place;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-callers-"));
  const subgraphs = { xp: instances.url };
  const composed = compose({ xp: await schemaFile(instances.servers[0]) }, subgraphs);
  const supergraph = join(scratch, "supergraph.graphql");
  await writeFile(supergraph, composed.supergraph);
  place = { supergraph, subgraphs, scratch, home: instances.servers[0] };
});

after(async () => {
  await instances.close();
  if (scratch) await rm(scratch, { recursive: true });
});

const signIn = (url, client, { email = me.email, password = PASSWORD } = {}) =>
  ask(url, { query: SIGN_IN, variables: { input: { email, password } } }, { "x-forwarded-for": client, "user-agent": `Phone of ${client}` });

/** Asks as fetch cannot: without User-Agent. */
async function withoutAgent(url, operation) {
  const sent = request(url, { method: "POST", headers: { "content-type": "application/json", accept: "application/json" } });
  sent.end(JSON.stringify(operation));
  const [response] = await once(sent, "response");
  const { data, errors } = await json(response);
  assert.equal(errors, undefined, JSON.stringify(errors));
  return data;
}

for (const name of names) {
  describe(`through ${name}`, () => {
    let gateway;

    before(async () => {
      gateway = await startGateway(name, place);
    });

    after(() => gateway?.close());

    test("a session is that of the client's address and device", async () => {
      const { data, errors } = await signIn(gateway.url, "203.0.113.99");
      assert.equal(errors, undefined, JSON.stringify(errors));
      assert.deepEqual(data.signIn.session, { ipAddress: "203.0.113.99", userAgent: "Phone of 203.0.113.99" });
    });

    test("a session of a client that does not say what it is has no device", async () => {
      // Programs that send a request say what they are themselves, unless they are told otherwise.
      const { signIn } = await withoutAgent(gateway.url, { query: SIGN_IN, variables: { input: { email: me.email, password: PASSWORD } } });
      assert.equal(signIn.session.userAgent, null);
    });

    // One address has 20 tries at once, on each instance.
    test("fifty clients that try at once do not keep others from signing in, and one that tries too often is slowed down", async () => {
      const wrong = (client, index) => signIn(gateway.url, client, { email: `${name}-${index}@example.com`, password: "wrong horse" });
      const codesOf = ({ data, errors }) => errors?.map(({ extensions }) => extensions.code) ?? data.signIn.userErrors.map(({ code }) => code);
      for (let index = 0; index < 50; index++) {
        assert.deepEqual(codesOf(await wrong(`198.${names.indexOf(name) + 20}.${index}.1`, index)), ["INVALID_CREDENTIALS"]);
      }
      const own = [];
      for (let index = 0; index < 50; index++) own.push(...codesOf(await wrong(`198.${names.indexOf(name) + 20}.100.1`, 100 + index)));
      assert.ok(own.includes("RATE_LIMITED"), String(own));
      assert.equal((await signIn(gateway.url, "203.0.113.98")).errors, undefined);
    });

    if (silent.includes(name)) {
      test("it passes no token on, as its configuration says", async () => {
        const [headers, body] = [{ "content-type": "application/json", ...bearer(token.EDITOR) }, { query: RENAME, variables: { name } }];
        const written = await fetch(gateway.url, { method: "POST", headers, body: JSON.stringify(body) });
        const { data, extensions } = await written.json();
        assert.equal(data.updateProfile.user.displayName, name);
        assert.deepEqual([written.headers.get("x-cache-token"), extensions?.cacheToken], [null, undefined]);
      });
      return;
    }

    test("what a client wrote it reads on every instance, by the token that it was given", async () => {
      let stale = 0;
      const read = new Set();
      for (let index = 0; index < WRITES; index++) {
        const displayName = `${name} ${index}`;
        const body = JSON.stringify({ query: RENAME, variables: { name: displayName } });
        const headers = { "content-type": "application/json", accept: "application/json", ...bearer(token.EDITOR) };
        const written = await fetch(gateway.url, { method: "POST", headers, body });
        const { data, extensions } = await written.json();
        assert.equal(data.updateProfile.user.displayName, displayName);
        const given = written.headers.get("x-cache-token");
        assert.match(given ?? "", /^\S+$/);
        assert.equal(extensions?.cacheToken, given);
        for (const _ of instances.servers) {
          instances.asked.length = 0;
          const answer = await ask(gateway.url, { query: "{ me { displayName } }" }, { ...bearer(token.EDITOR), "x-cache-token": given });
          if (answer.data.me.displayName !== displayName) stale++;
          assert.equal(instances.asked[0].headers["x-cache-token"], given);
          read.add(instances.asked[0].server);
        }
      }
      assert.equal(stale, 0);
      assert.equal(read.size, instances.servers.length);
    });
  });
}
