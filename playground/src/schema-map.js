// A schema's SDL as a map of its types: which are there, by which fields one knows them (keys), to which domain they belong,
// and which fields lead from one to another. Pages, payloads and inputs are left out: a field that gives a page leads to what
// is on it. Pure, except for where boxes are put.
import { parse } from "graphql";

const ROOTS = new Set(["Query", "Mutation", "Subscription"]);
const WIDTH = 250;
const GAP = { x: 90, y: 28 };
/** The height above the fields: of the name, and of the keys below it where they are known. */
const NAME = 29;
const KEYS = 17;
const ROW = 19;

/** @returns {{types: object[], domains: string[]}} */
export function readTypes(sdl) {
  const objects = new Map();
  for (const definition of parse(sdl, { noLocation: true }).definitions) {
    if (definition.kind === "ObjectTypeDefinition") objects.set(definition.name.value, definition);
  }
  const isShown = (name) => objects.has(name) && !ROOTS.has(name) && !isPart(name) && isNode(objects.get(name));
  const types = [...objects].filter(([name]) => isShown(name)).map(([name, definition]) => ({
    name,
    about: definition.description?.value ?? "",
    domain: directive(definition, "tag")?.name ?? "",
    keys: keysOf(definition),
    fields: definition.fields.map((field) => fieldOf(field, objects, isShown)),
  }));
  return { types, domains: [...new Set(types.map(({ domain }) => domain))].sort() };
}

function isPart(name) {
  return /(Connection|Edge|Payload)$/.test(name);
}

function isNode(definition) {
  return definition.interfaces.some(({ name }) => name.value === "Node");
}

function keysOf(definition) {
  return definition.directives.filter(({ name }) => name.value === "key").map((key) => argumentsOf(key).fields);
}

function fieldOf(field, objects, isShown) {
  const { name, isList } = named(field.type);
  const nodes = isPart(name) && objects.get(name)?.fields.find((one) => one.name.value === "nodes");
  const target = nodes ? named(nodes.type).name : name;
  const deprecated = directive(field, "deprecated");
  return {
    name: field.name.value,
    type: printType(field.type),
    about: field.description?.value ?? "",
    target: isShown(target) ? target : null,
    isList: isList || Boolean(nodes),
    deprecated: deprecated && (deprecated.reason ?? "No longer supported"),
  };
}

function named(type, isList = false) {
  if (type.kind === "NamedType") return { name: type.name.value, isList };
  return named(type.type, isList || type.kind === "ListType");
}

function printType(type) {
  if (type.kind === "NamedType") return type.name.value;
  return type.kind === "ListType" ? `[${printType(type.type)}]` : `${printType(type.type)}!`;
}

function directive(node, name) {
  const found = node.directives.find((one) => one.name.value === name);
  return found && argumentsOf(found);
}

function argumentsOf(directive) {
  return Object.fromEntries(directive.arguments.map(({ name, value }) => [name.value, value.value]));
}

/** Puts the types into columns of about the same height, and draws a line for each field that leads to another type. */
export function layOut(types, columns) {
  const heights = Array.from({ length: columns }, () => 0);
  const boxes = new Map();
  const heaviest = [...types].sort((a, b) => b.fields.length - a.fields.length || a.name.localeCompare(b.name));
  for (const type of heaviest) {
    const column = heights.indexOf(Math.min(...heights));
    const height = headOf(type) + ROW * type.fields.length + 8;
    boxes.set(type.name, { type, column, x: column * (WIDTH + GAP.x), y: heights[column], width: WIDTH, height });
    heights[column] += height + GAP.y;
  }
  const lines = [...boxes.values()].flatMap((from) =>
    from.type.fields.flatMap((field, index) => {
      const to = field.target && boxes.get(field.target);
      return to ? [{ from: from.type.name, to: field.target, field: field.name, path: path(from, index, to) }] : [];
    }),
  );
  const width = columns * (WIDTH + GAP.x) - GAP.x;
  return { boxes: [...boxes.values()], lines, width, height: Math.max(...heights, GAP.y) - GAP.y };
}

export const rowAt = (type, index) => headOf(type) + ROW * index + ROW / 2;

function headOf({ keys }) {
  return keys.length ? NAME + KEYS : NAME;
}

function path(from, index, to) {
  const y = from.y + rowAt(from.type, index);
  const end = to.y + 16;
  const isRight = to.column > from.column;
  const start = isRight || to.column === from.column ? from.x + from.width : from.x;
  const stop = to.column === from.column ? to.x + to.width : isRight ? to.x : to.x + to.width;
  const bend = to.column === from.column ? 44 : isRight ? Math.max(40, (stop - start) / 2) : -Math.max(40, (start - stop) / 2);
  const back = to.column === from.column ? 44 : -bend;
  return `M${start} ${y} C${start + bend} ${y}, ${stop + back} ${end}, ${stop} ${end}`;
}
