// Where a gateway answers otherwise than our server by its own nature, and exactly how. An exception is for one gateway and
// one operation; what it says is held to like everything else, and it fails where it is no longer needed.
import { TYPES } from "./types.mjs";

const OWN_CODE = "it checks this before it asks anybody, and has a code of its own";
const ONE_OF = "composition drops @oneOf, so the gateway lets the input through, and makes a null field of our refusal";
const NOT_READ = "it does not read the errors of an answer with the status 400, which our refusal has by GraphQL over HTTP";
const MERGES = "its engine puts the lists of a field that is selected twice one behind the other";
const NULL_ENTITY = "its engine adds an error to each entity that is not there, also where null is allowed";

/** One code more for each object that is null. */
const perNull = ({ data, codes }) => [...codes, ...data.filter((object) => object === null).map(() => "INTERNAL_SERVER_ERROR")];
const nullEntity = { because: NULL_ENTITY, codes: perNull };
const code = (because, name) => ({ because, codes: () => [name] });

/**
 * For each gateway, by the operation's title: what the answer has in the place of `data` or `codes`, made from the direct
 * answer.
 *
 * @type {Record<string, Record<string, {because: string, codes?: (direct: any) => string[], data?: (direct: any) => any}>>}
 */
export const exceptions = {
  apollo: {
    "both fields of a one-of input": { because: ONE_OF, data: () => ({ userBy: null }) },
    "an operation that the document does not have": code(OWN_CODE, "INVALID_GRAPHQL"),
  },
  hive: {
    ...Object.fromEntries(TYPES.map((type) => [`${type} by id: there, absent, and there again`, nullEntity])),
    "User by e-mail, for those who may see it and for those who may not": nullEntity,
    "every form by id: drafts are for their owners": nullEntity,
    "a variable of another type": code(OWN_CODE, "undefined"),
    "a variable that is missing": code(OWN_CODE, "undefined"),
    "both fields of a one-of input": { because: ONE_OF, data: () => ({ userBy: null }) },
  },
  "hive-router-runtime": {
    "a variable of another type": code(OWN_CODE, "undefined"),
    "a variable that is missing": code(OWN_CODE, "undefined"),
    Merged: { because: MERGES, data: ({ data }) => data && { users: { nodes: inThree(data.users.nodes) } } },
  },
  grafbase: {
    "a variable of another type": code(OWN_CODE, "VARIABLE_ERROR"),
    "a variable that is missing": code(OWN_CODE, "VARIABLE_ERROR"),
    "both fields of a one-of input": code(OWN_CODE, "VARIABLE_ERROR"),
    "a field that is not there": code(OWN_CODE, "OPERATION_VALIDATION_ERROR"),
    "no GraphQL": code(OWN_CODE, "OPERATION_PARSING_ERROR"),
    "an operation that the document does not have": code(OWN_CODE, "OPERATION_PARSING_ERROR"),
    "a time that is none": code(NOT_READ, "SUBGRAPH_REQUEST_ERROR"),
    "more than may be loaded": code(NOT_READ, "SUBGRAPH_REQUEST_ERROR"),
    SessionsOfAll: code(NOT_READ, "SUBGRAPH_REQUEST_ERROR"),
  },
  "hive-router": {
    "both fields of a one-of input": { because: ONE_OF, data: () => ({ userBy: null }) },
    "a field that is not there": code(OWN_CODE, "FieldsOnCorrectType"),
  },
  "apollo-router": {
    "a variable of another type": code(OWN_CODE, "VALIDATION_INVALID_TYPE_VARIABLE"),
    "a variable that is missing": code(OWN_CODE, "VALIDATION_INVALID_TYPE_VARIABLE"),
    "no GraphQL": { because: OWN_CODE, codes: () => ["PARSING_ERROR", "PARSING_ERROR", "PARSING_ERROR"] },
    "an operation that the document does not have": code(OWN_CODE, "GRAPHQL_UNKNOWN_OPERATION_NAME"),
  },
};

/** The operation `Merged` selects the accounts three times: each time something else of them. */
function inThree(nodes) {
  return [
    ...nodes.map(({ id }) => ({ id })),
    ...nodes.map(({ displayName, sessions }) => ({ displayName, sessions: { nodes: sessions.nodes } })),
    ...nodes.map(({ sessions }) => ({ sessions: { totalCount: sessions.totalCount } })),
  ];
}

const TWICE = "it asks two subgraphs for the object, and each says what is wrong with the key";
const asked2 = { "User by an id that is none, beside a good one": { because: TWICE, codes: ({ codes }) => [...codes, ...codes] } };

/** The same for the graph that is split into four. */
export const ofTheSplit = {
  apollo: { ...exceptions.apollo, ...asked2 },
  hive: exceptions.hive,
  "hive-router-runtime": { ...exceptions["hive-router-runtime"], ...asked2 },
  grafbase: { ...exceptions.grafbase, ...asked2 },
  "hive-router": { ...exceptions["hive-router"], ...asked2 },
  "apollo-router": { ...exceptions["apollo-router"], ...asked2 },
};
