// What graphql-js says of a document: its verdict and its kind. It has our custom scalars, and reads the grammar of the
// specification (it takes empty selection sets by default, which the specification does not have).
import {
  GraphQLError, Kind, buildSchema, getOperationAST, getVariableValues, parse, specifiedRules, validate,
} from "graphql";

/** Whether a text is a time as the scalar DateTime has it. */
function isTime(text) {
  const parts = /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)$/.exec(text);
  if (!parts) return false;
  const [, year, month, day, hour, minute, second] = parts.map(Number);
  const days = new Date(Date.UTC(2000, month, 0)).getUTCDate();
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const most = month === 2 && !isLeap ? 28 : days;
  return month >= 1 && month <= 12 && day >= 1 && day <= most && hour < 24 && minute < 60 && second < 60 && year >= 1;
}

function time(value) {
  if (typeof value !== "string" || !isTime(value)) throw new GraphQLError("no time");
  return value;
}

function json(node) {
  switch (node.kind) {
    case Kind.ENUM: throw new GraphQLError("names must be in quotes");
    case Kind.LIST: node.values.forEach(json); break;
    case Kind.OBJECT: node.fields.forEach((field) => json(field.value)); break;
    default:
  }
  return node;
}

/** A schema with the scalars of the server. */
export function schemaOf(sdl) {
  const schema = buildSchema(sdl);
  const dateTime = schema.getType("DateTime");
  if (dateTime) {
    dateTime.parseValue = dateTime.coerceInputValue = time;
    dateTime.parseLiteral = dateTime.coerceInputLiteral = (node) => {
      if (node.kind !== Kind.STRING) throw new GraphQLError("no time");
      return time(node.value);
    };
  }
  const any = schema.getType("JSON");
  if (any) any.parseLiteral = any.coerceInputLiteral = json;
  return schema;
}

// How deep questions about the schema may go is a limit of ours, with its own code.
const rules = specifiedRules.filter((rule) => rule.name !== "MaxIntrospectionDepthRule");

/** The verdict on one request. */
export function judge(schema, { query, variables, operationName }) {
  let document;
  try {
    document = parse(query, { noLocation: true, allowEmptySelectionSets: false });
  } catch (error) {
    return { kind: "syntax", message: error.message };
  }
  const errors = validate(schema, document, rules, { maxErrors: 1 });
  if (errors.length > 0) return { kind: "validation", message: errors[0].message };
  const operation = getOperationAST(document, operationName);
  if (!operation) return { kind: "operation", message: "no operation" };
  const coerced = getVariableValues(schema, operation.variableDefinitions ?? [], variables ?? {});
  if (coerced.errors) return { kind: "coercion", message: coerced.errors[0].message };
  return { kind: "ok" };
}
