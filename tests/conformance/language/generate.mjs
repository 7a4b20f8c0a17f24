// Writes documents with variables from a seed: mostly such as fit a schema, with mistakes of all kinds strewn in. What
// is generated is a list of tokens, so that mistakes can be made in the syntax too. Not here: what is right (graphql-js).
import {
  GraphQLNonNull, GraphQLList, getNamedType, isAbstractType, isCompositeType, isEnumType, isInputObjectType,
  isInputType, isLeafType, isListType, isNonNullType, isObjectType, isUnionType,
} from "graphql";

/** Numbers from 0 to 1 (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const ALIASES = ["a", "b", "x", "name", "id", "on", "query", "color"];
const TEXTS = [
  '""', '"text"', '"ünïcode 😀"', '"\\u00e9\\n\\t\\"\\\\\\/"', '"\\u{1F600}"', '"\\uD83D\\uDE00"', '"\\u{41}b"',
  '"""block"""', '"""\n    deep\n      deeper \\""" end\n  """', '"""\r\n\t\ttabs\r\r   \n"""', '"# no { comment"',
  '"2026-01-02T03:04:05Z"', '"RED"', '"12"', '"a\u0000b"',
];
const BAD_TEXTS = ['"\\uD83D"', '"\\uDE00"', '"\\x"', '"\\u{}"', '"\\u{110000}"', '"\\u{D800}"', '"open', '"""open', '"two\nlines"', '"\\u12"', '"\\u{0000000041}"', '"\\uD83D\\u0041"'];
const NUMBERS = ["0", "-0", "1", "7", "-3", "2147483647", "-2147483648", "0.5", "-1.25e3", "1E-2", "12e0", "9007199254740993"];
const BAD_NUMBERS = ["00", "01", "-", "1.", ".5", "1e", "1a", "0x1", "1.2.3", "+1", "-01", "1_0"];
const LARGE = ["2147483648", "-2147483649", "99999999999999999999", "1e10"];
const STRAY = [
  "{", "}", "(", ")", "[", "]", ":", "!", "$", "@", "=", "...", "|", "&", "on", "query", "mutation", "subscription",
  "fragment", "true", "null", "name", "id", "RED", "1", "1.5", '"s"', '"""b"""', "@skip", "$v0", "{}", "()", "[]", "..",
  ".", "?", "%", "'", "é", "\u0000", "schema", "extend", "type", "a:b", "...on", "# c\n", "\ufeff", "F0", "_", "__typename",
];

/** One document with variables. */
export class Generator {
  constructor(schema, seed) {
    this.schema = schema;
    this.next = random(seed);
    // Some have no mistake, some few, some many.
    this.mistakes = [0, 0, 0.01, 0.03, 0.1][this.below(5)];
    this.tokens = [];
    this.variables = new Map();
    this.fragments = [];
    this.budget = 40;
    this.directives = schema.getDirectives();
    this.types = Object.values(schema.getTypeMap());
    this.inputs = this.types.filter((type) => isInputType(type) && !type.name.startsWith("__"));
    this.composites = this.types.filter((type) => isCompositeType(type) && !type.name.startsWith("__"));
  }

  below(count) { return Math.floor(this.next() * count); }
  chance(of) { return this.next() < of; }
  /** Whether to make a mistake here. */
  err(times = 1) { return this.chance(this.mistakes * times); }
  pick(from) { return from[this.below(from.length)]; }
  put(...tokens) { this.tokens.push(...tokens); }

  document() {
    const operations = this.chance(0.75) ? 1 : 1 + this.below(3);
    const parts = [];
    const names = [];
    for (let index = 0; index < operations; index += 1) {
      const isAnonymous = operations === 1 ? this.chance(0.3) : this.err();
      const name = isAnonymous ? undefined : this.err() ? names[0] ?? "on" : this.pick(["Q", "on", "query", "A_1"]) + index;
      if (name !== undefined) names.push(name);
      parts.push(this.operation(name));
    }
    // Fragments may ask for further ones.
    for (let index = 0; index < this.fragments.length; index += 1) parts.push(this.fragment(this.fragments[index]));
    if (this.err(0.5)) parts.push(this.part(() => { this.put("fragment", "Unused", "on", "Query", "{", "__typename", "}"); }));
    if (this.err(0.3) && parts.length > 1) parts.push(this.pick(parts));
    if (this.chance(0.2)) parts.sort(() => this.next() - 0.5);
    let tokens = parts.flat();
    if (this.chance(this.mistakes > 0 ? 0.35 : 0)) tokens = this.damaged(tokens);
    let text = this.spaced(tokens);
    if (this.mistakes > 0 && this.chance(0.06)) text = this.torn(text);
    return { query: text.toWellFormed(), variables: this.given(), operationName: this.named(names) };
  }

  named(names) {
    if (names.length === 0) return undefined;
    if (names.length === 1 && this.chance(0.7)) return undefined;
    return this.err(0.5) ? this.pick(["Nobody", ""]) : this.pick(names);
  }

  part(write) {
    const tokens = this.tokens;
    this.tokens = [];
    write();
    const part = this.tokens;
    this.tokens = tokens;
    return part;
  }

  operation(name) {
    this.variables = new Map();
    this.allVariables ??= new Map();
    const draw = this.next();
    const kind = draw < 0.7 ? "query" : draw < 0.85 ? "mutation" : "subscription";
    const root = { query: this.schema.getQueryType(), mutation: this.schema.getMutationType(), subscription: this.schema.getSubscriptionType() }[kind];
    const first = this.fragments.length;
    const isShort = kind === "query" && name === undefined && this.chance(0.5);
    const directives = isShort ? [] : this.part(() => this.someDirectives(kind.toUpperCase()));
    this.isRoot = kind === "subscription" && !this.err(5);
    const set = this.part(() => (this.isRoot ? this.oneField(root) : this.set(root, 0, false)));
    // The fragments that it has asked for use its variables.
    const bodies = [];
    for (let index = first; index < this.fragments.length; index += 1) this.body(this.fragments[index], bodies);
    return this.part(() => {
      if (this.chance(0.08) && (!isShort || this.err(3))) this.put(this.pick(['"Who asks."', '"""\nWho asks.\n"""']));
      if (!isShort || this.variables.size > 0) {
        this.put(kind);
        if (name !== undefined) this.put(name);
        if (this.variables.size > 0 || this.err(0.3)) this.definitions();
        this.put(...directives);
      }
      this.put(...set);
      for (const [key, value] of this.variables) this.allVariables.set(key, value);
    });
  }

  body(fragment) {
    fragment.tokens ??= this.part(() => {
      this.someDirectives("FRAGMENT_DEFINITION");
      this.set(fragment.type, 3, false);
    });
  }

  fragment(fragment) {
    this.body(fragment);
    return this.part(() => {
      if (this.chance(0.08)) this.put('"A part."');
      const type = this.err() ? this.pick(this.types).name : fragment.type.name;
      this.put("fragment", this.err(0.3) ? "on" : fragment.name, "on", this.err(0.3) ? "Nothing" : type, ...fragment.tokens);
    });
  }

  definitions() {
    const entries = [...this.variables];
    if (this.err()) entries.push(["unused", { type: "Int" }]);
    if (this.err()) entries.splice(this.below(entries.length), 1);
    if (this.err(0.5) && entries.length > 0) entries.push(this.pick(entries));
    this.put("(");
    for (const [name, variable] of entries) {
      if (this.chance(0.05)) this.put('"A variable."');
      this.put("$", name, ":", ...variable.type.match(/\w+|\W/g));
      const directives = () => this.someDirectives("VARIABLE_DEFINITION", true);
      const isEarly = this.err(0.3);
      if (isEarly) directives();
      if (variable.default !== undefined) this.put("=", ...variable.default);
      if (!isEarly) directives();
    }
    this.put(")");
  }

  set(type, depth, single) {
    this.put("{");
    const count = single ? 1 : 1 + this.below(depth > 3 ? 2 : 4);
    const written = [];
    for (let index = 0; index < count; index += 1) {
      this.budget -= 1;
      if (written.length > 0 && this.chance(0.08)) {
        this.put(...this.pick(written));
        continue;
      }
      const part = this.part(() => this.selection(type, depth));
      this.put(...part);
      written.push(part);
    }
    if (this.err(0.2)) this.put("{", "}");
    this.put("}");
  }

  /** The selection set of a subscription. */
  oneField(root) {
    this.put("{");
    if (this.chance(0.3)) this.put("...", ...this.pick([[], ["on", root.name]]), "{");
    const isNested = this.tokens.length > 1;
    const field = this.pick(Object.values(root.getFields()));
    this.put(field.name);
    this.arguments(field.args);
    const named = getNamedType(field.type);
    if (isCompositeType(named)) this.set(named, 1, false);
    this.put(...(isNested ? ["}", "}"] : ["}"]));
  }

  selection(type, depth) {
    const draw = this.next();
    const canNest = depth < 5 && this.budget > 0;
    if (canNest && draw < 0.12) {
      const condition = this.condition(type);
      this.put("...");
      if (condition) this.put("on", this.err(0.5) ? this.pick([...this.types.map((of) => of.name), "Nothing"]) : condition.name);
      this.someDirectives("INLINE_FRAGMENT");
      this.set(condition ?? type, depth + 1, false);
    } else if (canNest && draw < 0.26) {
      this.put("...");
      // One that is still being written would contain itself.
      const known = this.fragments.filter((fragment) => (fragment.isWhole || this.err()) && (this.err() || this.meet(fragment.type, type)));
      let fragment = known.length > 0 && this.chance(0.5) ? this.pick(known) : undefined;
      if (!fragment && this.fragments.length < 5) {
        fragment = { name: `F${this.fragments.length}`, type: this.condition(type) ?? type };
        this.fragments.push(fragment);
      }
      if (this.err() && this.fragments.length > 0) fragment = this.pick(this.fragments);
      if (!fragment) fragment = this.fragments.find((of) => of.isWhole && this.meet(of.type, type));
      if (!fragment && !this.err()) {
        this.tokens.pop();
        this.put("__typename");
        return;
      }
      this.put(this.err(0.5) ? "Missing" : fragment?.name ?? "Missing");
      this.someDirectives("FRAGMENT_SPREAD");
      if (fragment && !fragment.tokens && depth < 5) {
        fragment.tokens = [];
        fragment.tokens = this.part(() => {
          this.someDirectives("FRAGMENT_DEFINITION");
          this.set(fragment.type, depth + 1, false);
        });
        fragment.isWhole = true;
      }
    } else {
      this.field(type, depth, canNest);
    }
  }

  /** Whether a value can be of both types. */
  meet(one, other) {
    const possible = (type) => (isAbstractType(type) ? this.schema.getPossibleTypes(type) : [type]);
    return possible(one).some((type) => possible(other).includes(type));
  }

  condition(type) {
    if (this.chance(0.2)) return undefined;
    if (this.err()) return this.pick(this.composites);
    if (isAbstractType(type)) {
      const possible = this.schema.getPossibleTypes(type);
      const others = this.composites.filter((of) => isAbstractType(of) && this.schema.getPossibleTypes(of).some((one) => possible.includes(one)));
      return this.pick([...possible, ...possible, ...others]);
    }
    const all = this.composites.filter((of) => of === type || (isAbstractType(of) && this.schema.getPossibleTypes(of).includes(type)));
    return this.pick(all);
  }

  field(type, depth, canNest) {
    if (isUnionType(type) && !this.err()) {
      this.put("__typename");
      return;
    }
    let fields = isUnionType(type) ? [] : Object.values(type.getFields());
    if (!canNest) fields = fields.filter((field) => isLeafType(getNamedType(field.type)));
    const meta = this.next();
    if (fields.length === 0 || meta < 0.06) {
      if (this.chance(0.2)) this.put("a", ":");
      this.put("__typename");
      if (this.chance(0.2)) this.someDirectives("FIELD");
      return;
    }
    if (meta < 0.08 && type === this.schema.getQueryType()) return this.introspection();
    const field = this.pick(fields);
    const hasArguments = field.args.length > 0;
    if (this.chance(hasArguments ? 0.7 : 0.2)) this.put(this.chance(0.12) ? this.pick(ALIASES) : `${field.name}_${(this.aliases = (this.aliases ?? 0) + 1)}`, ":");
    this.put(this.err() ? this.pick(["nothing", "nam", "ID"]) : field.name);
    this.arguments(field.args);
    this.someDirectives("FIELD");
    const named = getNamedType(field.type);
    if (isCompositeType(named) !== this.err(0.5)) {
      this.set(isCompositeType(named) ? named : this.schema.getQueryType(), depth + 1, false);
    }
  }

  introspection() {
    this.put(...this.pick([
      ["__schema", "{", "types", "{", "name", "kind", "fields", "(", "includeDeprecated", ":", "true", ")", "{", "name", "type", "{", "ofType", "{", "name", "}", "}", "}", "}", "}"],
      ["__type", "(", "name", ":", '"User"', ")", "{", "name", "possibleTypes", "{", "name", "}", "isOneOf", "}"],
      ["__type", "{", "name", "}"],
      ["__schema", "{", "queryType", "{", "name", "nothing", "}", "}"],
      ["__schema", "{", "directives", "{", "name", "locations", "args", "{", "name", "defaultValue", "}", "}", "}"],
    ]));
  }

  arguments(known) {
    const given = known.filter((argument) => (isNonNullType(argument.type) && argument.defaultValue === undefined && argument.default === undefined ? !this.err() : this.chance(0.45)));
    if (this.chance(0.15)) given.sort(() => this.next() - 0.5);
    if (given.length === 0 && !this.err(0.3)) return;
    this.put("(");
    for (const argument of given) {
      this.put(this.err(0.5) ? "nothing" : argument.name, ":");
      const hasDefault = argument.defaultValue !== undefined || argument.default !== undefined;
      this.value(argument.type, 0, { hasDefault });
      if (this.err(0.3)) {
        this.put(argument.name, ":");
        this.value(argument.type, 0, {});
      }
    }
    this.put(")");
  }

  someDirectives(location, constant = false) {
    while (this.chance(0.12)) {
      const fitting = this.directives.filter((directive) => directive.locations.includes(location));
      if (fitting.length === 0 && !this.err(3)) return;
      const directive = fitting.length === 0 || this.err(2) ? this.pick(this.directives) : this.pick(fitting);
      this.put("@", this.err(0.5) ? "nothing" : directive.name);
      if (constant) {
        const before = this.constant;
        this.constant = true;
        this.arguments(directive.args);
        this.constant = before;
      } else {
        this.arguments(directive.args);
      }
      if (!directive.isRepeatable && !this.err(3)) break;
    }
  }

  value(type, depth, { hasDefault = false, oneOf = false } = {}) {
    if (this.err()) type = this.pick(this.inputs);
    if (!this.constant && this.chance(depth === 0 ? 0.22 : 0.12)) return this.variable(type, hasDefault, oneOf);
    if (this.constant && this.err(0.3)) return this.put("$", "v0");
    if (isNonNullType(type)) {
      if (this.err()) return this.put("null");
      type = type.ofType;
    } else if (this.chance(0.06) && !oneOf) {
      return this.put("null");
    }
    if (this.err(0.7)) return this.put(...this.pick([["[", "]"], ["{", "}"], ["true"], ["RED"], ["1"], ["1.5"], ['"text"'], ["null"], [this.pick(BAD_TEXTS)], [this.pick(BAD_NUMBERS)], [this.pick(LARGE)]]));
    if (isListType(type)) {
      if (this.chance(0.2)) return this.value(type.ofType, depth + 1);
      this.put("[");
      for (let count = this.below(depth > 2 ? 2 : 4); count > 0; count -= 1) this.value(type.ofType, depth + 1);
      return this.put("]");
    }
    if (isEnumType(type)) return this.put(this.err() ? this.pick(["PURPLE", "red", "true"]) : this.pick(type.getValues()).name);
    if (isInputObjectType(type)) return this.object(type, depth);
    this.put(this.leaf(type.name));
  }

  leaf(name) {
    switch (name) {
      case "Int": return this.pick(this.err() ? LARGE : NUMBERS.filter((number) => /^-?\d{1,10}$/.test(number)));
      case "Float": return this.pick(NUMBERS);
      case "Boolean": return this.pick(["true", "false"]);
      case "ID": return this.chance(0.5) ? this.pick(TEXTS) : this.pick(["1", "-5", "99999999999999999999"]);
      case "DateTime": return this.pick(['"2026-01-02T03:04:05Z"', '"2026-01-02T03:04:05.123456+01:30"', ...(this.err(3) ? ['"2026-13-02T03:04:05Z"', '"yesterday"', "5"] : [])]);
      case "JSON": return this.pick([...TEXTS, ...NUMBERS, "true", "null"]);
      default: return this.pick(TEXTS);
    }
  }

  object(type, depth) {
    const fields = Object.values(type.getFields());
    let given;
    if (type.isOneOf) {
      given = this.err(2) ? fields.filter(() => this.chance(0.5)) : [this.pick(fields)];
    } else {
      const isRequired = (field) => isNonNullType(field.type) && field.defaultValue === undefined && field.default === undefined;
      given = fields.filter((field) => (isRequired(field) ? !this.err() : depth < 3 && this.chance(0.35)));
    }
    this.put("{");
    for (const field of given) {
      const hasDefault = field.defaultValue !== undefined || field.default !== undefined;
      this.put(this.err(0.4) ? "nothing" : field.name, ":");
      this.value(field.type, depth + 1, { hasDefault, oneOf: type.isOneOf });
      if (this.err(0.5)) {
        this.put(field.name, ":");
        this.value(field.type, depth + 1);
      }
    }
    this.put("}");
  }

  variable(type, hasDefault, oneOf) {
    const known = [...this.variables].filter(([, variable]) => variable.for === String(type));
    if (known.length > 0 && this.chance(0.4)) return this.put("$", this.pick(known)[0]);
    if (this.err(0.5)) return this.put("$", this.pick(["missing", "v0"]));
    let of = type;
    if (this.err(2)) of = this.pick([getNamedType(type), new GraphQLList(type), isNonNullType(type) ? type.ofType : type, this.pick(this.inputs)]);
    else if (!isNonNullType(type) && (oneOf || this.chance(0.4))) of = new GraphQLNonNull(type);
    else if (isNonNullType(type) && hasDefault && this.chance(0.5)) of = type.ofType;
    const name = `v${this.variables.size}`;
    const variable = { for: String(type), type: this.err(0.3) ? this.pick(["Nothing", "User", "[Found!]", "[[[Int]]]"]) : String(of), of };
    this.variables.set(name, variable);
    const wantsDefault = isNonNullType(type) && !isNonNullType(of) && !hasDefault;
    if (wantsDefault ? !this.err() : this.chance(0.2)) {
      const before = this.constant;
      this.constant = true;
      variable.default = this.part(() => this.value(wantsDefault ? type : of, 1));
      this.constant = before;
    }
    this.put("$", name);
  }

  /** Values for the variables. */
  given() {
    const given = {};
    const isWrong = this.chance(0.3);
    const noise = isWrong ? 0.12 : 0;
    for (const [name, variable] of this.allVariables ?? this.variables) {
      if (!isNonNullType(variable.of) && this.chance(0.3)) continue;
      if (this.chance(noise / 2)) continue;
      given[name] = this.json(variable.of, noise, 0);
    }
    if (this.chance(0.05)) given.extra = 1;
    return given;
  }

  json(type, noise, depth) {
    if (this.chance(noise)) return this.pick([null, 1, 1.5, "text", true, [], {}, [null], { x: 1 }, "RED", 2147483648, -1, "", [[1]], 1e20, { name: "x", nothing: 1 }]);
    if (isNonNullType(type)) return this.json(type.ofType, noise, depth);
    if (this.chance(0.1) && depth > 0) return null;
    if (isListType(type)) {
      if (this.chance(0.15)) return this.plain(type.ofType, noise, depth);
      return Array.from({ length: this.below(3) }, () => this.plain(type.ofType, noise, depth));
    }
    return this.plain(type, noise, depth);
  }

  plain(type, noise, depth) {
    if (isNonNullType(type)) {
      const value = this.plain(type.ofType, noise, 0);
      return value;
    }
    if (isListType(type)) return Array.from({ length: this.below(3) }, () => this.plain(type.ofType, noise, depth + 1));
    if (this.chance(noise)) return this.json(type, 1, depth);
    if (isEnumType(type)) return this.pick(type.getValues()).name;
    if (isInputObjectType(type)) {
      const fields = Object.values(type.getFields());
      const isRequired = (field) => isNonNullType(field.type) && field.defaultValue === undefined && field.default === undefined;
      const given = type.isOneOf ? [this.pick(fields)] : fields.filter((field) => (isRequired(field) ? !this.chance(noise) : depth < 3 && this.chance(0.3)));
      const object = {};
      for (const field of given) object[field.name] = this.plain(field.type, noise, depth + 1);
      if (this.chance(noise / 2)) object.nothing = 1;
      if (type.isOneOf && this.chance(noise)) object[this.pick(fields).name] = null;
      return object;
    }
    switch (type.name) {
      case "Int": return this.pick([0, 1, -7, 2147483647, 3.0]);
      case "Float": return this.pick([0, 1, 0.5, -1e300]);
      case "Boolean": return this.chance(0.5);
      case "ID": return this.pick(["1", "text", 5, -1, 12.0]);
      case "DateTime": return this.pick(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5-11:00"]);
      case "JSON": return this.pick([1, "x", true, { a: [1, null] }, [[]]]);
      default: return this.pick(["", "text", "ünïcode 😀"]);
    }
  }

  // Mistakes in the syntax.

  damaged(tokens) {
    tokens = [...tokens];
    for (let count = 1 + this.below(2); count > 0 && tokens.length > 0; count -= 1) {
      const at = this.below(tokens.length);
      const draw = this.below(6);
      if (draw === 0) tokens.splice(at, 1);
      else if (draw === 1) tokens.splice(at, 0, this.pick(STRAY));
      else if (draw === 2) tokens[at] = this.pick(STRAY);
      else if (draw === 3) tokens.splice(at, 0, tokens[this.below(tokens.length)]);
      else if (draw === 4) [tokens[at], tokens[(at + 1) % tokens.length]] = [tokens[(at + 1) % tokens.length], tokens[at]];
      else tokens[at] = tokens[this.below(tokens.length)];
    }
    return tokens;
  }

  torn(text) {
    const at = this.below(text.length);
    const draw = this.below(4);
    if (draw === 0) return text.slice(0, at);
    if (draw === 1) return text.slice(0, at) + text.slice(at + 1);
    if (draw === 2) return text.slice(0, at) + this.pick([..."{}()[]\"\\#:@$!=.0e-\n ü"]) + text.slice(at);
    return text.slice(0, at) + text.slice(at + this.below(12));
  }

  /** The tokens as a text, with what is ignored between them. */
  spaced(tokens) {
    const isWild = this.chance(0.3);
    let text = "";
    for (const token of tokens) {
      if (isWild && this.chance(0.15)) text += this.pick(["\n", ",", "\t", " \r\n", "\ufeff", "# c \"{[\n", "#é\r", " , ,"]);
      const isTight = /[\w."]$/.test(text) && /^[\w."-]/.test(token);
      text += isTight || !isWild || this.chance(0.3) ? ` ${token}` : token;
    }
    return text;
  }
}
