// Composes subgraphs into a supergraph, with no registry: our schema with the neighbours of federation/neighbours/.
import { readFile } from "node:fs/promises";
import { composeServices } from "@apollo/composition";
import { parse } from "graphql";

const NEIGHBOUR = new URL("../../federation/neighbours/reviews.graphql", import.meta.url);

/** The addresses in federation/supergraph.graphql. */
export const USUAL = { xp: "http://127.0.0.1:8080/graphql", reviews: "http://127.0.0.1:4001/graphql" };

export const neighbourSdl = await readFile(NEIGHBOUR, "utf8");

/** @returns {{supergraph?: string, errors: string[], hints: string[]}} */
export function compose(sdls, urls = USUAL) {
  const services = Object.entries(sdls).map(([name, sdl]) => ({ name, url: urls[name], typeDefs: parse(sdl) }));
  const { supergraphSdl, errors = [], hints = [] } = composeServices(services);
  return {
    supergraph: supergraphSdl && `${supergraphSdl.trimEnd()}\n`,
    errors: errors.map(({ message }) => message),
    hints: hints.map(({ definition, message }) => `${definition.code}: ${message}`),
  };
}
