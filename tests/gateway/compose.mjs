// Composes subgraphs into a supergraph, with no registry: our schema, whole or split by domain, with the neighbours of
// federation/neighbours/. Three composers must agree: Apollo's, The Guild's and WunderGraph's.
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { composeServices as composeByApollo } from "@apollo/composition";
import { composeServices as composeByGuild } from "@theguild/federation-composition";
import { federateSubgraphs as composeByCosmo } from "@wundergraph/composition";
import { parse } from "graphql";

/** The usual split: each subgraph with the domains that it serves. */
export const SPLIT = { accounts: "users,sessions", forms: "forms", locations: "locations", activity: "activity" };

/** The addresses in federation/supergraph.graphql and federation/supergraph-split.graphql. */
export const USUAL = {
  xp: "http://127.0.0.1:8080/graphql",
  accounts: "http://127.0.0.1:8081/graphql",
  forms: "http://127.0.0.1:8082/graphql",
  locations: "http://127.0.0.1:8083/graphql",
  activity: "http://127.0.0.1:8084/graphql",
  reviews: "http://127.0.0.1:4001/graphql",
  notes: "http://127.0.0.1:4002/graphql",
  devices: "http://127.0.0.1:4003/graphql",
};

const neighbour = (name) => readFile(new URL(`../../federation/neighbours/${name}.graphql`, import.meta.url), "utf8");

export const neighbourSdl = await neighbour("reviews");
export const notesSdl = await neighbour("notes");
export const devicesSdl = await neighbour("devices");

/** What `xp schema` prints; XP_BINARY is the program. */
const print = (...words) => execFileSync(process.env.XP_BINARY, ["schema", ...words], { encoding: "utf8", env: {} });

/** The schema of each subgraph of the split. */
export const splitSdls = () =>
  Object.fromEntries(Object.entries(SPLIT).map(([name, domains]) => [name, print("--subgraphs", domains)]));

/** The schema of the whole that says who is refused what, for gateways that refuse by themselves. */
export const authorizationSdl = () => print("--set", "graph.authorization_directives=true");

/** @returns {{supergraph?: string, errors: string[], hints: string[]}} */
export function compose(sdls, urls = USUAL) {
  const { supergraphSdl, errors = [], hints = [] } = composeByApollo(services(sdls, urls));
  return {
    supergraph: supergraphSdl && `${supergraphSdl.trimEnd()}\n`,
    errors: errors.map(({ message }) => message),
    hints: hints.map(({ definition, message }) => `${definition.code}: ${message}`),
  };
}

/** Each answers with the supergraph's schema, with errors, and with hints or whatever it calls them. */
export const composers = {
  apollo: compose,
  guild(sdls, urls = USUAL) {
    const { supergraphSdl, errors = [] } = composeByGuild(services(sdls, urls));
    return { supergraph: supergraphSdl, errors: errors.map(({ message }) => message), hints: [] };
  },
  cosmo(sdls, urls = USUAL) {
    const subgraphs = services(sdls, urls).map(({ typeDefs, ...one }) => ({ ...one, definitions: typeDefs }));
    const composed = composeByCosmo({ subgraphs, version: "1" });
    return {
      supergraph: composed.success ? composed.federatedGraphSchema : undefined,
      errors: composed.success ? [] : composed.errors.map(({ message }) => message),
      hints: composed.warnings.map(({ message }) => message),
    };
  },
};

function services(sdls, urls) {
  return Object.entries(sdls).map(([name, sdl]) => ({ name, url: urls[name], typeDefs: parse(sdl) }));
}
