// The types that a gateway finds by their id, as the schema has them: one more is asked for as soon as it is there.
import { readFileSync } from "node:fs";
import { parse } from "graphql";

const { definitions } = parse(readFileSync(new URL("../../schema/subgraph.graphql", import.meta.url), "utf8"));

const hasId = ({ directives }) =>
  directives.some(({ name, arguments: [fields] }) => name.value === "key" && fields.value.value === "id");

/** Their names. */
export const TYPES = definitions.filter(({ kind }) => kind === "ObjectTypeDefinition").filter(hasId).map(({ name }) => name.value);
