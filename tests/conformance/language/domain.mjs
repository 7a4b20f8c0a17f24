// The domain of schema/engine/examples/answers.rs for graphql-js, and documents about it.
import { buildSchema, execute, parse } from "graphql";
import { random } from "./generate.mjs";

const THINGS = 20;

class Thing {
  constructor(id, raised) {
    this.raised = raised;
    this.id = id;
    this.name = `Thing "${id}" ü`;
    this.label = id % 3 === 0 ? null : `label\n${id}`;
    this.weight = id / 4;
    this.hidden = id % 2 === 1 ? this.name : null;
  }

  of(id) { return new Thing(id % THINGS, this.raised); }
  mentor() {
    if (this.id % 5 === 2) throw new Error(`thing ${this.id} lost the mentor`);
    return this.id % 5 === 4 ? null : this.of(this.id * 7 + 1);
  }
  deputy() {
    if (this.id % 7 === 3) throw new Error(`thing ${this.id} lost the deputy`);
    return this.id % 7 === 5 ? null : this.of(this.id * 3 + 2);
  }
  friends() {
    if (this.id % 6 === 4) throw new Error(`thing ${this.id} lost the friends`);
    return Array.from({ length: this.id % 4 }, (_, step) => this.of(this.id + step + 1));
  }
}

const found = (id) => (id >= 0 && id < THINGS ? new Thing(id) : null);
const rootValue = {
  thing: ({ id, shift }) => found((id + shift) | 0),
  needed: ({ id, shift }) => found((id + shift) | 0),
  few: ({ id }) => {
    const at = ((id % THINGS) + THINGS) % THINGS;
    return Array.from({ length: at % 4 }, (_, step) => new Thing((at + step + 1) % THINGS));
  },
};

export const domainOf = (sdl) => buildSchema(sdl);

/** What graphql-js answers. */
export const answer = (schema, { query, variables }) => execute({ schema, document: parse(query), rootValue, variableValues: variables });

/** A valid document about the domain, with variables. */
export function question(seed) {
  const next = random(seed);
  const below = (count) => Math.floor(next() * count);
  const pick = (from) => from[below(from.length)];
  const used = new Map();
  const fragments = [];
  let budget = 40;
  const directive = () => {
    const draw = below(14);
    if (draw > 4) return "";
    const [declared, text] = [
      ["$yes: Boolean!", "@skip(if: $yes) "], ["$yes: Boolean!", "@include(if: $yes) "], ["$no: Boolean! = false", "@skip(if: $no) "],
      ["", "@include(if: true) "], ["", "@skip(if: false) @include(if: false) "],
    ][draw];
    if (declared) used.set(declared, true);
    return text;
  };
  const set = (type, depth) => {
    const items = [];
    for (let count = 1 + below(4); count > 0; count -= 1) {
      budget -= 1;
      const canNest = depth < 6 && budget > 0;
      const draw = below(12);
      if (canNest && draw === 0) items.push(`... ${directive()}${set(type, depth + 1)}`);
      else if (canNest && draw === 1) items.push(`... on ${type} ${directive()}${set(type, depth + 1)}`);
      else if (canNest && draw === 2) {
        const body = set(type, depth + 1);
        const name = `F${fragments.length}`;
        fragments.push(`fragment ${name} on ${type} ${body}`);
        items.push(`...${name} ${directive()}`);
      } else if (draw === 3 && items.length > 0) items.push(pick(items));
      else items.push(field(type, depth, canNest));
    }
    return `{ ${items.join(" ")} }`;
  };
  const field = (type, depth, canNest) => {
    if (type === "Query") {
      const name = pick(["thing", "thing", "needed", "few", "__typename"]);
      if (name === "__typename") return `${pick(["", "t: "])}__typename ${directive()}`;
      // The alias says what the arguments are, so that equal keys ask for equal things.
      const id = below(24);
      const [alias, given] = pick([
        [`${name}_${id}`, `(id: ${id})`], [`${name}_${id}_1`, `(id: ${id}, shift: 1)`], [`${name}_n`, "(id: $n)"], [`${name}_m`, "(shift: $m, id: 3)"],
      ]);
      if (given.includes("$n")) used.set("$n: Int!", true);
      if (given.includes("$m")) used.set("$m: Int! = 2", true);
      return `${alias}: ${name}${given} ${directive()}${set("Thing", depth + 1)}`;
    }
    const leaves = ["id", "name", "label", "weight", "hidden", "__typename"];
    const name = canNest ? pick([...leaves, "mentor", "mentor", "mentor", "deputy", "friends", "friends"]) : pick(leaves);
    const alias = pick(["", "", "x_", "y_"]);
    const beneath = leaves.includes(name) ? "" : set("Thing", depth + 1);
    return `${alias ? `${alias}${name}: ` : ""}${name} ${directive()}${beneath}`;
  };
  const body = set("Query", 0);
  const variables = {};
  if (used.has("$yes: Boolean!")) variables.yes = below(2) === 1;
  if (used.has("$n: Int!")) variables.n = below(22);
  if (used.has("$m: Int! = 2") && below(2) === 1) variables.m = below(20);
  const declared = used.size > 0 ? `(${[...used.keys()].join(", ")})` : "";
  return { query: `query Q${declared} ${body}\n${fragments.join("\n")}`, variables };
}

/** Why two answers are not the same; nothing where they are. */
export function difference(ours, theirs) {
  if (JSON.stringify(ours.data) !== JSON.stringify(theirs.data)) return "other data";
  const paths = (errors = []) => errors.map((error) => JSON.stringify(error.path));
  const [own, other] = [paths(ours.errors), paths(theirs.errors)];
  if ((own.length > 0) !== (other.length > 0)) return "errors on one side only";
  // Of several fields that make one parent null any may be named (section 6.4.4); ten errors are told at most.
  const nullAt = (path, data) => {
    let value = data;
    const steps = JSON.parse(path);
    for (let index = 0; index < steps.length; index += 1) {
      if (value === null) return JSON.stringify(steps.slice(0, index));
      value = value?.[steps[index]];
    }
    return path;
  };
  const nulled = (all, data) => [...new Set(all.map((path) => nullAt(path, data)))].sort();
  const [here, there] = [nulled(own, ours.data), nulled(other, theirs.data)];
  const isEnough = own.length >= 10 ? here.every((path) => there.includes(path)) : JSON.stringify(here) === JSON.stringify(there);
  return isEnough ? undefined : `other places of errors: ${here} and ${there}`;
}
