// The text of the variables editor, which may have comments: one set of variables, an object, or a list of sets, each of which
// the operation runs for. vite.config.mjs puts this in the place of GraphiQL's reading, which takes an object only. Pure.
import { parseJSONC } from "../node_modules/@graphiql/react/dist/utility/jsonc.js";

/**
 * @param {string} [text]
 * @returns {object | object[] | undefined} `undefined` where there are none
 * @throws what is wrong with the text; it goes on after the word "Variables"
 */
export function parseVariables(text = "") {
  const variables = parsed(text);
  if (variables === undefined || variables === null) return undefined;
  if (Array.isArray(variables) ? variables.length > 0 && variables.every(isSet) : isSet(variables)) return variables;
  throw new TypeError("are neither a JSON object nor a list of JSON objects.");
}

function parsed(text) {
  try {
    return parseJSONC(text);
  } catch (error) {
    throw new SyntaxError(`are invalid JSON: ${error.message}.`);
  }
}

function isSet(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON schema of one set of variables as the schema of what the editor may hold: that, or a list of it. */
export function schemaOfSets({ definitions, $schema, $id, title, ...set }) {
  const sets = { type: "array", minItems: 1, items: set };
  return { $id, title, definitions, if: { type: "array" }, then: sets, else: set };
}
