// The text of the variables editor, which may have comments. Pure.
import { parse, printParseErrorCode } from "jsonc-parser";

/** The variables; `undefined` where there are none. Throws what is wrong with the text. */
export function parseVariables(text) {
  if (!text?.trim()) return undefined;
  const errors = [];
  const variables = parse(text, errors, { allowTrailingComma: true });
  if (errors.length) throw new Error(`The variables are not JSON: ${printParseErrorCode(errors[0].error)}`);
  return variables;
}
