// What is special to the routers that `build` builds: one that has proved to be a gateway, in front of a server as in
// production (only gateways may ask for entities, and clients' documents must be published). Not here: what operations answer
// (gateway.test.mjs and the others, which are run with the routers too).
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort, scratch as folder } from "../../processes.mjs";
import { compose, neighbourSdl } from "../compose.mjs";
import { look } from "../corpus.mjs";
import { exceptions } from "../exceptions.mjs";
import { names, programOf, startGateway } from "../gateways.mjs";
import { startNeighbour } from "../neighbour.mjs";
import { operations } from "../operations.mjs";
import { startServer } from "../split.mjs";
import { firstEvent, transports } from "../subscriptions.mjs";
import { ask, askAs, bearer, tokens } from "../xp.mjs";

const SECRET = "the secret of the routers in this test";
const PASSWORD = "xp-graph-demo";
const MOVED = "subscription { locationUpdated { latitude user { displayName reputation } } }";
/** A router calls back at its own port. */
const callbackPort = await freePort();
const PRODUCTION = { XP_GATEWAY_SECRETS: SECRET, XP_GATEWAY_REQUIRED: "on", XP_DOCUMENTS_MODE: "require_id" };

const home = folder("routers");
const running = [];
const endpoint = await startServer(home, [], running, { ...PRODUCTION, XP_GATEWAY_CALLBACK_ORIGINS: `http://127.0.0.1:${callbackPort}` });
// As the gateway: the server runs no other documents.
const proven = (token) => ({ "router-authorization": SECRET, ...bearer(token) });
const asGateway = async (token, query, variables) => (await ask(endpoint, { query, variables }, proven(token))).data;
const token = await tokens(endpoint);
const sdl = (await asGateway(undefined, "{ _service { sdl } }"))._service.sdl;
const { me: collector } = await asGateway(token.COLLECTOR, "{ me { id email displayName } }");
const reviews = Array.from({ length: 40 }, (_, index) => ({ id: String(index), stars: 3, authorId: collector.id }));

let scratch;
let place;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), "xp-routers-"));
  const neighbour = await startNeighbour(reviews);
  running.push({ server: { kill: neighbour.close } });
  place = { ...(await composed("routers", endpoint, neighbour.url)), home: endpoint, secret: SECRET };
});

after(async () => {
  for (const { server } of running) server.kill();
  await Promise.all(running.map(({ ended }) => ended));
  if (scratch) await rm(scratch, { recursive: true });
});

async function composed(name, xp, neighbour) {
  const subgraphs = { xp, reviews: neighbour };
  const { supergraph: text, errors } = compose({ xp: sdl, reviews: neighbourSdl }, subgraphs);
  assert.deepEqual(errors, []);
  const supergraph = join(scratch, `${name}.graphql`);
  await writeFile(supergraph, text);
  return { supergraph, subgraphs, scratch };
}

/** A session of a demo account. */
async function signIn(email) {
  const query = "mutation ($input: SignInInput!) { signIn(input: $input) { accessToken session { id } userErrors { code } } }";
  const { signIn } = await asGateway(undefined, query, { input: { email, password: PASSWORD } });
  assert.deepEqual(signIn.userErrors, []);
  return { token: signIn.accessToken, session: signIn.session.id };
}

const endSession = (by, id) =>
  asGateway(by, "mutation ($input: RevokeSessionInput!) { revokeSession(input: $input) { userErrors { code } } }", { input: { id } });

/** A token that ends after so many seconds. */
async function mint(email, seconds) {
  const env = { DATABASE_URL: "sqlite:xp-dev.db", XP_AUTH_SECRET: "development: everybody knows this secret" };
  const words = ["token", "mint", "--user", email, "--ttl-seconds", String(seconds)];
  return (await promisify(execFile)(process.env.XP_BINARY, words, { cwd: home, env })).stdout.trim();
}

/** Operations that a router refuses before it asks us, with our code and words of its own. */
const ownWords = [
  "a field that is not there",
  "a variable of another type",
  "a variable that is missing",
  "no GraphQL",
  "an operation that the document does not have",
];

const told = ({ errors }) => errors?.map(({ message, extensions }) => [extensions?.code, message]);

for (const name of names) {
  describe(`${name}, which has proved to be a gateway`, () => {
    let router;

    before(async () => {
      router = await startGateway(name, place);
    });

    after(() => router?.close());

    test("documents that nobody has published run through it, and only through it", async () => {
      const query = "{ me { displayName } }";
      assert.deepEqual(await askAs(token.COLLECTOR, { query }, router.url), { me: { displayName: collector.displayName } });
      const direct = await ask(endpoint, { query }, bearer(token.COLLECTOR));
      assert.deepEqual(told(direct)[0][0], "PERSISTED_QUERY_ID_REQUIRED");
    });

    test("a token that is not valid and a right that is missing have our codes and messages", async () => {
      // Tokens are good for five seconds more, as clocks differ.
      const expired = await mint(collector.email, 1);
      await sleep(7_000);
      const create = `mutation { createUser(input: { email: "x@example.com", displayName: "X", role: VIEWER }) { user { id } } }`;
      for (const [query, by] of [
        ["{ me { id } }", "no.such.token"],
        ["{ me { id } }", expired],
        [create, "no.such.token"],
        [create, undefined],
        [create, token.MANAGER],
        [create, token.EDITOR],
      ]) {
        const [direct, through] = [await ask(endpoint, { query }, proven(by)), await ask(router.url, { query }, bearer(by))];
        assert.deepEqual(told(through), told(direct), query);
        assert.ok(["UNAUTHENTICATED", "FORBIDDEN"].includes(told(through)[0][0]));
      }
    });

    test("errors have the messages that we give", async () => {
      const seen = await look(router.url, token.ADMIN);
      const refused = Object.entries(operations(seen)).filter(
        ([title, { codes = [], direct }]) => codes.length > 0 && !direct && !(title in exceptions[name]) && !ownWords.includes(title),
      );
      assert.ok(refused.length >= 8, String(refused.length));
      for (const [title, { query, variables, as = ["ADMIN"] }] of refused) {
        const of = typeof variables === "function" ? variables() : variables;
        const [direct, through] = [await ask(endpoint, { query, variables: of }, proven(token[as[0]])), await ask(router.url, { query, variables: of }, bearer(token[as[0]]))];
        assert.deepEqual(told(through)?.sort(), told(direct)?.sort(), title);
      }
    });

    test("forty references of different selections are answered at once", async () => {
      const fields = reviews.map(({ id }) => `r${id}: review(id: "${id}") { author { n${id}: displayName } }`);
      const data = await askAs(token.ADMIN, { query: `{ ${fields.join(" ")} }` }, router.url);
      for (const { id } of reviews) assert.equal(data[`r${id}`].author[`n${id}`], collector.displayName);
    });

    test("it may start before we do", async () => {
      const port = await freePort();
      const late = await startGateway(name, { ...(await composed("late", `http://127.0.0.1:${port}/graphql`, place.subgraphs.reviews)), secret: SECRET });
      try {
        assert.ok((await ask(late.url, { query: "{ me { id } }" })).errors.length > 0);
        const place = folder("late");
        await startServer(place, [], running, { ...PRODUCTION, PORT: String(port) });
        const own = await tokens(`http://127.0.0.1:${port}`);
        const rename = `mutation { updateProfile(input: { displayName: "Late" }) { user { displayName } } }`;
        assert.deepEqual(await askAs(own.EDITOR, { query: rename }, late.url), { updateProfile: { user: { displayName: "Late" } } });
      } finally {
        await late.close();
      }
    });
  });
}

if (names.includes("apollo-router")) {
  const shipped = (file) => fileURLToPath(new URL(`../../../federation/gateways/apollo-router/${file}`, import.meta.url));
  const run = (...words) => promisify(execFile)(programOf("apollo-router"), words, { env: { APOLLO_TELEMETRY_DISABLED: "true" }, timeout: 30_000 });

  test("apollo-router validates the licensed part, and without a licence names what needs one", async () => {
    const both = join(scratch, "with-licence.yaml");
    const [free, licensed] = await Promise.all(["router.yaml", "licensed.yaml"].map((file) => readFile(shipped(file), "utf8")));
    await writeFile(both, (free + licensed).replace("scripts: rhai", `scripts: ${shipped("rhai")}`).replace("127.0.0.1:8088", "127.0.0.1:0"));
    assert.match((await run("config", "validate", both)).stdout, /is valid/);
    await assert.rejects(run("--config", both, "--supergraph", place.supergraph), ({ stderr, stdout }) => {
      assert.match(stderr + stdout, /license violation.*Authentication plugin.*Federated subscriptions/);
      return true;
    });
  });

  test("apollo-router does not start with a supergraph that says who is refused, but with ours", async () => {
    const config = join(scratch, "free.yaml");
    const free = (await readFile(shipped("router.yaml"), "utf8")).replace("scripts: rhai", `scripts: ${shipped("rhai")}`);
    await writeFile(config, free.replace("127.0.0.1:8088", "127.0.0.1:0").replace("127.0.0.1:4000", "127.0.0.1:0"));
    const golden = fileURLToPath(new URL("../../../federation/supergraph-authorization.graphql", import.meta.url));
    await assert.rejects(run("--config", config, "--supergraph", golden), ({ stderr, stdout }) => {
      assert.match(stderr + stdout, /license violation.*authenticated.*requiresScopes/);
      return true;
    });
  });
}

/** By what Hive Router may have its events from us: the part of its configuration. */
const UPSTREAM = {
  "a stream over HTTP": () => ({}),
  "a WebSocket": () => ({
    "subscriptions:\n  enabled: true": "subscriptions:\n  enabled: true\n  websocket: { subgraphs: { xp: { path: /graphql } } }",
  }),
  "callbacks": () => ({
    "subscriptions:\n  enabled: true": `subscriptions:\n  enabled: true\n  callback: { public_url: "http://127.0.0.1:${callbackPort}/callback", listen: "127.0.0.1:${callbackPort}", subgraphs: [xp] }`,
  }),
};

// Apollo Router has subscriptions under a licence of Apollo's only.
if (names.includes("hive-router")) {
  for (const [upstream, change] of Object.entries(UPSTREAM)) {
    describe(`subscriptions of hive-router, which has them from us by ${upstream}`, () => {
      let router;

      before(async () => {
        const websocket = { "# websocket:\n#   enabled: true": "websocket:\n  enabled: true" };
        router = await startGateway("hive-router", { ...place, change: () => ({ ...change(), ...websocket }) });
      });

      after(() => router?.close());

      for (const [transport, subscribe] of Object.entries(transports)) {
        /** With what errors it is over. */
        const outcome = async (by, begun) => {
          const before = await subscriptions();
          const events = subscribe(router, MOVED, by);
          const first = events.next();
          first.catch(() => {});
          await begun?.(before + 1);
          const { value } = await first;
          await events.return();
          assert.equal(told(value)?.length, 1, JSON.stringify(value));
          return told(value)[0];
        };

        test(`over ${transport} an event arrives with what the neighbour adds`, async () => {
          const { data, errors } = await eventOf(subscribe(router, MOVED, token.COLLECTOR), token.COLLECTOR);
          assert.equal(errors, undefined, JSON.stringify(errors));
          assert.equal(data.locationUpdated.user.reputation, `${collector.displayName}: ${reviews.length} reviews`);
        });

        test(`over ${transport} nobody is told to sign in`, async () => {
          assert.deepEqual(await outcome(undefined), ["UNAUTHENTICATED", "Sign in first"]);
        });

        test(`over ${transport} a bad token is refused`, async () => {
          assert.deepEqual(await outcome("no.such.token"), ["UNAUTHENTICATED", "The access token is not valid."]);
        });

        test(`over ${transport} the end of a session is told`, async () => {
          const [own, other] = [await signIn(collector.email), await signIn(collector.email)];
          const end = async (count) => {
            while ((await subscriptions()) < count) await sleep(25);
            await endSession(other.token, own.session);
          };
          assert.deepEqual(await outcome(own.token, end), ["UNAUTHENTICATED", "The session has ended."]);
        });

        test(`over ${transport} the end of a token is told, and a fresh one goes on`, async () => {
          assert.deepEqual(await outcome(await mint(collector.email, 2)), ["UNAUTHENTICATED", "The access token has expired."]);
          const { data } = await eventOf(subscribe(router, MOVED, await mint(collector.email, 300)), token.COLLECTOR);
          assert.equal(typeof data.locationUpdated.latitude, "number");
        });
      }
    });
  }
}

/** The first event of a stream of the collector's, who goes on until it comes. */
const eventOf = (events, by) => firstEvent(events, by, (query, variables) => asGateway(by, query, variables));

/** How many subscriptions we have. */
async function subscriptions() {
  const text = await (await fetch(new URL("/metrics", endpoint))).text();
  const counts = [...text.matchAll(/^graphql_server_subscriptions\{[^}]*\} (\d+)/gm)].map(([, count]) => Number(count));
  return counts.reduce((sum, count) => sum + count, 0);
}
