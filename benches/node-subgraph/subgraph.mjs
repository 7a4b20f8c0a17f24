#!/usr/bin/env node
// Accounts and where each was last, as Apollo's documentation has a subgraph written: Apollo Server, @apollo/subgraph, and
// for each request a DataLoader of each kind over pg. Asked like the baseline in Rust: `subgraph.mjs --listen HOST:PORT`,
// DATABASE_URL in the environment. It trusts everybody.
import { parseArgs } from "node:util";
import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { buildSubgraphSchema } from "@apollo/subgraph";
import DataLoader from "dataloader";
import { parse } from "graphql";
import pg from "pg";

const { values } = parseArgs({ options: { listen: { type: "string" } } });
const [host, port] = values.listen.split(":");
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });

const typeDefs = parse(`
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])
  scalar DateTime
  type Query { user(id: ID!): User }
  type User @key(fields: "id") { id: ID! displayName: String! email: String lastLocation: Location }
  type Location @key(fields: "id") {
    id: ID! timestamp: DateTime! latitude: Float! longitude: Float! accuracy: Float
  }
`);

/** Times as text with six digits of the second: a JavaScript date has three. */
const TIME = `'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'`;

const resolvers = {
  Query: { user: (_, { id }, { users }) => users.load(id) },
  User: {
    __resolveReference: ({ id }, { users }) => users.load(id),
    displayName: (user) => user.display_name,
    lastLocation: ({ id }, _, { lastLocations }) => lastLocations.load(id),
  },
};

/** A loader of rows by a column, which is `key` in the rows. */
function loader(name, sql) {
  return new DataLoader(async (keys) => {
    const { rows } = await pool.query({ name, text: sql, values: [keys] });
    const byKey = new Map(rows.map((row) => [row.key, row]));
    return keys.map((key) => byKey.get(key) ?? null);
  });
}

const USERS = "SELECT id AS key, id, display_name, email FROM users WHERE id = ANY($1)";
const LAST_LOCATIONS = `SELECT user_id AS key, id, to_char("timestamp" AT TIME ZONE 'UTC', ${TIME}) AS "timestamp",
  latitude, longitude, accuracy FROM user_last_locations WHERE user_id = ANY($1)`;

const server = new ApolloServer({ schema: buildSubgraphSchema({ typeDefs, resolvers }), csrfPrevention: false });
await startStandaloneServer(server, {
  context: async () => ({ users: loader("users", USERS), lastLocations: loader("last_locations", LAST_LOCATIONS) }),
  listen: { host, port: Number(port) },
});
