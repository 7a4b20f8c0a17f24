// GraphQL Federation (once called Composite Schemas): `xp schema --dialect graphql-federation` is composed with a neighbour by
// Grafbase, the only composer of that federation that npm has, and its gateway starts with it, which checks each lookup
// against the keys. It cannot run lookups of one object yet ("not implemented"), so each is asked here as a gateway would.
// Grafbase knows the directives by a link of its own. Not here: Apollo's federation.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { buildSchema, graphql, parse, print } from "graphql";
import { freePort, scratch, startProgram } from "../processes.mjs";
import { look } from "./corpus.mjs";
import { ABSENT } from "./operations.mjs";
import { TYPES } from "./types.mjs";
import { ask, askAs, endpoint, tokens } from "./xp.mjs";

const GRAFBASE = fileURLToPath(
  new URL("../../federation/gateways/grafbase/node_modules/@grafbase/cli-x86_64-unknown-linux-musl/grafbase", import.meta.url),
);
const LINK = `extend schema @link(url: "https://specs.grafbase.com/composite-schemas/v1",
  import: ["@key", "@lookup", "@is", "@shareable", "FieldSelectionSet", "FieldSelectionMap"])\n`;
const NEIGHBOUR = `
  type Query { marks: [Mark!]! }
  type Mark { text: String! ${TYPES.map((type) => `${type.toLowerCase()}: ${type}`).join(" ")} }
  ${TYPES.map((type) => `type ${type} @key(fields: "id") { id: ID! }`).join("\n")}`;

// Grafbase's program comes for Linux on x86-64 only.
if (existsSync(GRAFBASE)) {
  const home = scratch("lookups");
  const token = await tokens();
  const { ids } = await look(endpoint, token.ADMIN);
  const sdl = execFileSync(process.env.XP_BINARY, ["schema", "--dialect", "graphql-federation"], { encoding: "utf8", env: {} });
  let gateway;
  let neighbour;
  let config;

  before(async () => {
    const key = "directive @key(fields: String!) repeatable on OBJECT\n";
    const schema = buildSchema(key + NEIGHBOUR);
    const marks = [{ text: "there" }];
    neighbour = createServer(async (request, response) => {
      const { query, variables } = await json(request);
      const answer = await graphql({ schema, source: query, variableValues: variables, rootValue: { marks } });
      response.setHeader("content-type", "application/json").end(JSON.stringify(answer));
    }).listen(0, "127.0.0.1");
    await once(neighbour, "listening");
    await writeFile(join(home, "xp.graphql"), LINK + sdl);
    await writeFile(join(home, "marks.graphql"), LINK + NEIGHBOUR);
    config = join(home, "grafbase.toml");
    const subgraph = (name, url) => `[subgraphs.${name}]\nurl = "${url}"\nschema_path = "${join(home, `${name}.graphql`)}"\n`;
    const parts = [
      '[[headers]]\nrule = "forward"\nname = "authorization"\n',
      subgraph("xp", endpoint),
      subgraph("marks", `http://127.0.0.1:${neighbour.address().port}/graphql`),
    ];
    await writeFile(config, parts.join("\n"));
  });

  after(async () => {
    await gateway?.close();
    neighbour?.close();
    neighbour?.closeAllConnections();
  });

  test("it composes with a neighbour, without a word", async () => {
    const { stdout, stderr } = await promisify(execFile)(GRAFBASE, ["compose", "--config", config], { env: { HOME: home } });
    assert.equal(stderr, "");
    for (const type of TYPES) assert.match(stdout, new RegExp(`^type ${type}\\b`, "m"));
  });

  test("a gateway starts with it, and asks us", async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}/graphql`;
    const command = [GRAFBASE, "dev", "--config", config, "--listen-address", `127.0.0.1:${port}`];
    const isReady = async () => {
      const { data } = await ask(url, { query: "{ __typename }" }).catch(() => ({}));
      return data?.__typename === "Query";
    };
    gateway = await startProgram("grafbase", command, { isReady, within: 60_000, cwd: home, env: { ...process.env, HOME: home } });
    const query = "{ users(first: 3) { nodes { id displayName forms(first: 1) { nodes { title } } } } marks { text } }";
    const { marks, ...ours } = await askAs(token.ADMIN, { query }, url);
    assert.deepEqual(marks, [{ text: "there" }]);
    assert.deepEqual(ours, await askAs(token.ADMIN, { query: query.replace("marks { text }", "") }));
  });

  test("every entity is found by the lookup of each of its keys, or is null", async () => {
    const { definitions } = parse(sdl);
    const named = (name) => definitions.find((definition) => definition.name?.value === name);
    const unwrapped = (type) => (type.type ? unwrapped(type.type) : type.name.value);
    const marked = ({ directives }, name) => directives.filter((directive) => directive.name.value === name);
    const argumentOf = (directive) => directive.arguments[0].value.value;
    const lookups = named("Query").fields.filter((field) => marked(field, "lookup").length > 0);
    for (const type of TYPES) {
      for (const key of marked(named(type), "key").map(argumentOf)) {
        const { user } = await askAs(token.ADMIN, { query: "query ($id: ID!) { user(id: $id) { id email } }", variables: { id: ids.User } });
        const value = key === "email" ? user.email : ids[type];
        const found = lookups.filter((field) => {
          const [argument] = field.arguments;
          const map = marked(argument, "is").map(argumentOf)[0] ?? argument.name.value;
          return unwrapped(field.type) === type && map.includes(key);
        });
        assert.equal(found.length, 1, `${type} by ${key}`);
        const [{ name, arguments: [argument] }] = found;
        const given = marked(argument, "is").length > 0 ? (of) => ({ [key]: of }) : (of) => of;
        const query = `query ($key: ${print(argument.type)}) { ${name.value}(${argument.name.value}: $key) { __typename ${key} } }`;
        const asked = async (of) => (await askAs(token.ADMIN, { query, variables: { key: given(of) } }))[name.value];
        assert.deepEqual(await asked(value), { __typename: type, [key]: value });
        assert.equal(await asked(key === "email" ? "nobody@example.com" : ABSENT), null);
      }
    }
  });
}
