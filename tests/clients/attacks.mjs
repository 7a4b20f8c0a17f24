// The requests that are made to bring a server down, by family: name, what is sent, the codes that it may be answered
// with. Made, not recorded: each family goes through its shapes, places and sizes. Not here: how they are sent
// (attacks.test.mjs), connections that are the attack themselves (slow.test.mjs).
import { createHash } from "node:crypto";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";

const MIB = 1 << 20;

export const json = (value) => Buffer.from(JSON.stringify(value));
const raw = (text) => ({ body: Buffer.from(text) });
const query = (text, variables) => ({ body: json({ query: text, variables }) });
const many = (count, text) => Array.from({ length: count }, (_, n) => text(n)).join(" ");
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const get = (path, headers = {}) => ({ method: "GET", path, headers: { "apollo-require-preflight": "1", ...headers } });
let number = 0;

// Answers that are no failure of the server, whatever was sent.
const REFUSED = "BAD_USER_INPUT GRAPHQL_PARSE_FAILED GRAPHQL_VALIDATION_FAILED DEPTH_LIMIT COST_LIMIT PAYLOAD_TOO_LARGE";
const LIMITS = "DEPTH_LIMIT COST_LIMIT PAYLOAD_TOO_LARGE GRAPHQL_PARSE_FAILED";

/** Brackets in brackets, in every place of a document that takes values or selections. */
function* nestedDocuments() {
  const kinds = { lists: ["[", "]"], objects: ["{a:", "}"], both: ["[{a:", "}]"] };
  const places = {
    "an argument": (value) => `{ users(filter: ${value}) { totalCount } }`,
    "a default": (value) => `query($x: UserFilter = ${value}) { users(filter: $x) { totalCount } }`,
    "a directive": (value) => `{ me @include(if: ${value}) { id } }`,
    "an unknown field": (value) => `{ nothing(x: ${value}) }`,
    "a fragment": (value) => `{ me { ...F } } fragment F on User @a(x: ${value}) { id }`,
  };
  for (const [kind, [open, close]] of Object.entries(kinds)) {
    for (const [place, document] of Object.entries(places)) {
      for (const levels of [70, 1_000, 10_000]) {
        const closed = document(`${open.repeat(levels)}1${close.repeat(levels)}`);
        yield [`${levels} ${kind} in ${place}`, query(closed), LIMITS];
        if (levels > 1_000) yield [`the same without an end`, query(document(open.repeat(levels))), LIMITS];
      }
    }
  }
  const selections = {
    fields: ["{a", "}"], "inline fragments": ["{...", "}"], "typed fragments": ["{... on Query", "}"],
    "fields with arguments": ["{a(b:1)", "}"], aliases: ["{a:b", "}"],
  };
  for (const [kind, [open, close]] of Object.entries(selections)) {
    for (const levels of [70, 3_000]) {
      yield [`${levels} ${kind} in each other`, query(`${open.repeat(levels)}{a}${close.repeat(levels)}`), LIMITS];
    }
  }
  for (const levels of [70, 10_000]) {
    yield [`a type of ${levels} lists`, query(`query($x: ${"[".repeat(levels)}Int${"]".repeat(levels)}) { me { id } }`), LIMITS];
    yield [`${levels} parentheses`, query(`{ me${"(".repeat(levels)} }`), LIMITS];
    yield [`${levels} closing brackets`, query("}".repeat(levels)), LIMITS];
  }
}

/** Brackets in brackets, in every place of the JSON around. */
function* nestedJson() {
  const kinds = { lists: ["[", "]"], objects: ['{"a":', "}"], both: ['[{"a":', "}]"] };
  const places = {
    variables: (value) => `{"query":"query($x: UserFilter) { users(filter: $x) { totalCount } }","variables":{"x":${value}}}`,
    extensions: (value) => `{"query":"{ __typename }","extensions":{"x":${value}}}`,
    "an unknown key": (value) => `{"query":"{ __typename }","x":${value}}`,
    "the query": (value) => `{"query":${value}}`,
    "the place of the request": (value) => value,
  };
  for (const [kind, [open, close]] of Object.entries(kinds)) {
    for (const [place, request] of Object.entries(places)) {
      for (const levels of [40, 5_000, 100_000]) {
        yield [`${levels} ${kind} in ${place}`, raw(request(`${open.repeat(levels)}1${close.repeat(levels)}`)), REFUSED];
      }
      yield [`${kind} in ${place} without an end`, raw(request(open.repeat(20_000))), REFUSED];
    }
  }
}

/** Much of everything that there can be much of. */
function* counts() {
  const parts = {
    aliases: (n) => `{ ${many(n, (i) => `a${i}: __typename`)} }`,
    "root fields": (n) => `{ ${many(n, () => "__typename")} }`,
    fields: (n) => `{ me { ${many(n, (i) => `x${i}`)} } }`,
    directives: (n) => `{ __typename ${many(n, () => "@a")} }`,
    operations: (n) => many(n, (i) => `query Q${i} { __typename }`),
    fragments: (n) => `{ ...F0 } ${many(n, (i) => `fragment F${i} on Query { __typename }`)}`,
    spreads: (n) => `{ ${many(n, () => "...F")} } fragment F on Query { __typename }`,
    "inline fragments": (n) => `{ ${many(n, () => "... { __typename }")} }`,
    arguments: (n) => `{ users(${many(n, (i) => `a${i}: 1`)}) { totalCount } }`,
    variables: (n) => `query(${many(n, (i) => `$v${i}: Int`)}) { __typename }`,
    "values in a list": (n) => `{ users(filter: { roles: [${many(n, () => "ADMIN")}] }) { totalCount } }`,
    comments: (n) => `{ __typename }${"#c\n".repeat(n)}`,
    commas: (n) => `{ __typename ${",".repeat(n)} }`,
    "line breaks": (n) => `{ __typename ${"\r\n".repeat(n)} }`,
    "block strings": (n) => `{ users(after: """${'\\"""'.repeat(n)}""") { totalCount } }`,
    "quotes without an end": (n) => `{ users(after: """${'\\"""'.repeat(n)}`,
    escapes: (n) => `{ users(after: "${"\\u0041".repeat(n)}") { totalCount } }`,
  };
  for (const [part, document] of Object.entries(parts)) {
    for (const count of [600, 3_000, 100_000]) {
      yield [`${count} ${part}`, query(document(count)), `${REFUSED} BAD_CURSOR OPERATION_RESOLUTION_FAILURE OVERLOADED ok`];
    }
  }
}

function* fragments() {
  const chain = (count) => `{ ...F0 } ${many(count, (n) => `fragment F${n} on Query { ...F${n + 1} }`)} fragment F${count} on Query { __typename }`;
  const doubling = (count) => `{ ...F0 } ${many(count, (n) => `fragment F${n} on Query { ...F${n + 1} ...F${n + 1} }`)} fragment F${count} on Query { __typename }`;
  const circle = (count) => `{ ...F0 } ${many(count, (n) => `fragment F${n} on Query { ...F${(n + 1) % count} }`)}`;
  for (const count of [13, 20, 40]) yield [`fragments that double ${count} times`, query(doubling(count)), "COST_LIMIT"];
  for (const count of [1, 2, 3, 49]) yield [`a circle of ${count} fragments`, query(circle(count)), "GRAPHQL_VALIDATION_FAILED"];
  yield ["fragments 49 deep", query(chain(49)), "ok"];
  for (const count of [60, 400]) yield [`fragments ${count} deep`, query(chain(count)), "COST_LIMIT DEPTH_LIMIT"];
  yield ["a circle that nobody enters", query("{ __typename } fragment A on Query { ...B } fragment B on Query { ...A }"), "GRAPHQL_VALIDATION_FAILED"];
  yield ["a circle through fields", query("{ me { ...A } } fragment A on User { sessions { nodes { user { ...A } } } }"), "GRAPHQL_VALIDATION_FAILED"];
  yield ["a fragment called on", query("{ ...on } fragment on on Query { ...on }"), "GRAPHQL_VALIDATION_FAILED GRAPHQL_PARSE_FAILED"];
  yield ["ten circles", query(`{ ${many(10, (n) => `...A${n}`)} } ${many(10, (n) => `fragment A${n} on Query { ...A${(n + 1) % 10} ...A${(n + 5) % 10} }`)}`), "GRAPHQL_VALIDATION_FAILED"];
}

/** What may load too much. */
function* costs() {
  const pages = (levels, first) =>
    `{ users(first: ${first}) { nodes { ${"sessions(first: 50) { nodes { user { ".repeat(levels)} id ${"} } }".repeat(levels)} } } }`;
  yield ["pages in pages", query(pages(2, 100)), "COST_LIMIT DEPTH_LIMIT"];
  yield ["pages in pages in pages", query(pages(3, 100)), "COST_LIMIT DEPTH_LIMIT"];
  yield ["pages of variables", query("query($n: Int) { users(first: $n) { nodes { sessions(first: $n) { nodes { locations(first: $n) { nodes { id } } } } } } }", { n: 100 }), "COST_LIMIT"];
  yield ["pages of negative variables", query("query($n: Int) { users(first: $n) { nodes { sessions(first: $n) { nodes { id } } } } }", { n: -1 }), "BAD_USER_INPUT"];
  yield ["pages by default", query("{ users { nodes { sessions { nodes { locations { nodes { user { id } } } } } } } }"), "COST_LIMIT"];
  yield ["pages under 20 aliases", query(`{ ${many(20, (n) => `a${n}: users(first: 100) { nodes { sessions(first: 100) { nodes { id } } } }`)} }`), "COST_LIMIT"];
  yield ["1,001 ids", query("query($i: [ID!]!) { nodes(ids: $i) { id } }", { i: Array(1_001).fill("01890000-0000-7000-8000-000000000001") }), "BAD_USER_INPUT"];
  yield ["5,000 representations", query("query($r: [_Any!]!) { _entities(representations: $r) { __typename } }", { r: Array(5_000).fill({ __typename: "User", id: "01890000-0000-7000-8000-000000000001" }) }), "BAD_USER_INPUT"];
  yield ["introspection in depth", query(`{ __schema { types ${"{ fields { type ".repeat(4)} { name } ${"} }".repeat(4)} } }`), "DEPTH_LIMIT"];
  yield ["introspection of the introspection", query(`{ __type(name: "__Type") { ${"ofType { ".repeat(19)} name ${"}".repeat(19)} } }`), "DEPTH_LIMIT"];
  yield ["the schema, by all at once", query("{ _service { sdl } __schema { types { name description fields { name description type { name ofType { name } } args { name description } } } } }"), "ok"];
  yield ["passwords under 30 aliases", query(`mutation { ${many(20, (n) => `a${n}: signIn(input: { email: "a@example.com", password: "b" }) { accessToken }`)} }`), "BAD_USER_INPUT"];
}

/** Texts that are hard to handle, wherever a text can stand. */
function* texts() {
  const hard = {
    NUL: "a\u0000b", "a mark of byte order": "\uFEFFa", "a change of direction": "\u202Ea\u2066", joiners: "a\u200D".repeat(500),
    "combining marks": `a${"\u0301".repeat(5_000)}`, "line separators": "\u2028\u2029", "the last character": "\u{10FFFF}",
    "flags": "\u{1F1E9}\u{1F1EA}".repeat(500), "long ligatures": "\uFDFA".repeat(5_000), percent: "%".repeat(5_000), quotes: `'";--/*\\`, "no character": "\uFFFF\uFFFE",
  };
  const places = {
    "a search": (text) => query("query($s: String) { users(filter: { search: $s }) { totalCount } }", { s: text }),
    "an e-mail": (text) => query(`{ userBy(lookup: { email: ${JSON.stringify(text)} }) { id } }`),
    "an id": (text) => query("query($i: ID!) { node(id: $i) { id } }", { i: text }),
    "a cursor": (text) => query("query($c: String) { users(after: $c) { totalCount } }", { c: text }),
    "an operation's name": (text) => ({ body: json({ query: "{ __typename }", operationName: text }) }),
    "the document": (text) => query(`{ ${text} }`),
  };
  for (const [what, text] of Object.entries(hard)) {
    for (const [place, request] of Object.entries(places)) {
      yield [`${what} in ${place}`, request(text), `${REFUSED} BAD_CURSOR OPERATION_RESOLUTION_FAILURE ok`];
    }
  }
  yield ["lone surrogates in a document", raw('{"query":"{ userBy(lookup: { email: \\"\\ud800\\" }) { id } }"}'), "BAD_USER_INPUT"];
  yield ["lone surrogates in variables", raw('{"query":"{ __typename }","variables":{"a":"\\udfff"}}'), "BAD_USER_INPUT"];
  yield ["escaped surrogates in a document", query('{ userBy(lookup: { email: "\\ud800" }) { id } }'), REFUSED];
  yield ["bytes that are no UTF-8", { body: Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]) }, "BAD_USER_INPUT"];
  yield ["overlong UTF-8", { body: Buffer.concat([Buffer.from('{"query":"{ a'), Buffer.from([0xc0, 0x80]), Buffer.from(' }"}')]) }, "BAD_USER_INPUT"];
  yield ["UTF-16", { body: Buffer.from(JSON.stringify({ query: "{ __typename }" }), "utf16le") }, "BAD_USER_INPUT"];
  yield ["a mark of byte order before the body", raw('\uFEFF{"query":"{ __typename }"}'), "BAD_USER_INPUT"];
  yield ["a name of 60,000 letters", query(`{ ${"a".repeat(60_000)} }`), "GRAPHQL_VALIDATION_FAILED"];
  yield ["an unknown enum of 60,000 letters", query(`{ users(filter: { roles: [${"A".repeat(60_000)}] }) { totalCount } }`), REFUSED];
  yield ["a conflict about 30,000 letters", query(`{ ${"a".repeat(25_000)}: users(first: 1) { totalCount } ${"a".repeat(25_000)}: users(first: 2) { totalCount } }`), "GRAPHQL_VALIDATION_FAILED"];
}

function* numbers() {
  const hard = {
    "1e999999999": 0, "-1e999999999": 0, "1e-999999999": 0, "-0": 0, "00": 0, "01": 0, "0x10": 0, "1_000": 0, NaN: 0, "-Infinity": 0, "1.": 0, ".5": 0,
    2147483648: 0, "9223372036854775808": 0, "18446744073709551616": 0, "1.5": 0, "-": 0, "1e": 0,
    [`${"9".repeat(50_000)}`]: "50,000 digits", [`0.${"0".repeat(50_000)}1`]: "50,000 digits behind the point", [`1e${"9".repeat(50_000)}`]: "50,000 digits of an exponent",
  };
  for (const [text, name] of Object.entries(hard)) {
    yield [`${name || text} in a document`, query(`{ users(first: ${text}) { totalCount } }`), REFUSED];
    const body = `{"query":"query($n: Int) { users(first: $n) { totalCount } }","variables":{"n":${text}}}`;
    yield [`${name || text} in variables`, raw(body), REFUSED];
  }
}

/** Bodies that are large, or become large. */
function* bodies() {
  const zeros = Buffer.alloc(64 * MIB, 32);
  const coded = (body, coding) => ({ body, headers: { "content-encoding": coding } });
  const once = gzipSync(zeros);
  const inVariables = (value) => raw(`{"query":"query($x: UserFilter) { users(filter: $x) { totalCount } }","variables":{"x":${value}}}`);
  yield ["64 MiB of blanks in 64 KiB of gzip", coded(once, "gzip"), "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["the same, anonymous", { ...coded(once, "gzip"), anonymous: true }, "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["the same, compressed twice", coded(gzipSync(once), "gzip"), "BAD_USER_INPUT"];
  yield ["the same, and said so", coded(gzipSync(once), "gzip, gzip"), "BAD_USER_INPUT"];
  yield ["the same in brotli", coded(brotliCompressSync(zeros), "br"), "BAD_USER_INPUT"];
  yield ["the same in deflate", coded(deflateSync(zeros), "deflate"), "BAD_USER_INPUT"];
  for (const coding of ["zstd", "compress", "x-gzip", "", "gzip;q=1", "GZIP", "identity, gzip"]) {
    yield [`an encoding called '${coding}'`, coded(once, coding), "BAD_USER_INPUT PAYLOAD_TOO_LARGE OVERLOADED"];
  }
  yield ["gzip that breaks off", coded(once.subarray(0, 5_000), "gzip"), "PAYLOAD_TOO_LARGE BAD_USER_INPUT OVERLOADED"];
  yield ["gzip that is none", coded(Buffer.alloc(1_000, 7), "gzip"), "BAD_USER_INPUT"];
  yield ["gzip of gzip members", coded(Buffer.concat(Array(1_000).fill(gzipSync("{}"))), "gzip"), "BAD_USER_INPUT"];
  yield ["a gzip that says nothing", coded(gzipSync(""), "gzip"), "BAD_USER_INPUT"];
  yield ["1 MiB of lists in variables", inVariables(`${"[".repeat(MIB / 2)}1${"]".repeat(MIB / 2)}`), "DEPTH_LIMIT OVERLOADED"];
  yield ["1 MiB of objects in variables", inVariables(`${'{"a":'.repeat(170_000)}1${"}".repeat(170_000)}`), "DEPTH_LIMIT OVERLOADED"];
  yield ["1 MiB of brackets without an end", raw(`{"variables":${"[".repeat(MIB)}`), "DEPTH_LIMIT OVERLOADED"];
  yield ["1 MiB of values in variables", inVariables(`[${"1,".repeat(MIB / 2)}1]`), "COST_LIMIT OVERLOADED"];
  // One less than the bound, each of 72 bytes as it is read: 7 MiB for each of the 16 senders, if all are read before one is refused.
  yield ["99,000 values in variables", inVariables(`[${"1,".repeat(99_000)}1]`), "BAD_USER_INPUT OVERLOADED", 16 * 7];
  yield ["1 MiB of text in variables", inVariables(`{"search":"${"x".repeat(MIB)}"}`), "BAD_USER_INPUT OVERLOADED"];
  yield ["1 MiB of escapes in variables", inVariables(`{"search":"${"\\u0041".repeat(MIB / 6)}"}`), "BAD_USER_INPUT OVERLOADED"];
  yield ["1 MiB of keys in variables", inVariables(`{${many(40_000, (n) => `"k${n}":1,`)}"z":1}`), "BAD_USER_INPUT OVERLOADED"];
  yield ["1 MiB, anonymous", { ...inVariables(`"${"x".repeat(MIB)}"`), anonymous: true }, "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["3 MiB", inVariables(`"${"x".repeat(3 * MIB)}"`), "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["1 MiB of lists in the query", query(`{ users(filter: ${"[".repeat(MIB / 2)}1${"]".repeat(MIB / 2)}) { totalCount } }`), "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["1 MiB of objects in the query", query(`{ users(filter: ${"{a:".repeat(MIB / 4)}1${"}".repeat(MIB / 4)}) { totalCount } }`), "PAYLOAD_TOO_LARGE OVERLOADED"];
  yield ["an operation's name of 1 MiB", { body: json({ query: "{ __typename }", operationName: "a".repeat(MIB) }) }, "OPERATION_RESOLUTION_FAILURE OVERLOADED"];
  yield ["50,000 keys of a request", raw(`{${many(50_000, (n) => `"k${n}":1,`)}"query":"{__typename}"}`), "ok OVERLOADED"];
  yield ["a key twice", raw('{"query":"{ __typename }","query":"{ me { id } }"}'), "BAD_USER_INPUT"];
  yield ["an array of 1,000 requests", raw(`[${'{"query":"{__typename}"},'.repeat(999)}{"query":"{__typename}"}]`), "BAD_USER_INPUT"];
  yield ["an array of 50,000 arrays", raw(`[${"[],".repeat(49_999)}[]]`), "COST_LIMIT"];
  for (const text of ["", "null", "true", "1", '"{ __typename }"', "{}", "[]", "{", "query { me { id } }", " \t\n", "[null]", '{"query":null}', '{"query":[]}'])
    yield [`a body of '${text.trim()}'`, raw(text), "BAD_USER_INPUT"];
}

/** Requests that are odd as HTTP, or as persisted documents. */
function* envelopes() {
  const body = json({ query: "{ __typename }" });
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "application/jsonp", "application/json; charset=utf-7", "application/graphql", "nonsense", ";", "application/json/x", "*/*", "a".repeat(4_000)])
    yield [`content-type: ${type.slice(0, 40)}`, { body, headers: { "content-type": type } }, "BAD_USER_INPUT"];
  for (const accept of ["text/html", "application/json;q=0", "application/graphql-response+json;q=nan", "application/xml;q=1, text/*", ",".repeat(4_000) + "image/png", "a/b,".repeat(2_000)])
    yield [`accept: ${accept.slice(0, 40)}`, { body, headers: { accept } }, "BAD_USER_INPUT"];
  for (const authorization of ["Bearer", "Bearer a.b.c", `Bearer ${"a".repeat(8_000)}`, "Basic YTpi", "Bearer eyJhbGciOiJub25lIn0.e30.", `Bearer ${"a.".repeat(2_000)}`, "bearer  ", "Negotiate x"])
    yield [`authorization: ${authorization.slice(0, 40)}`, { body, headers: { authorization } }, "UNAUTHENTICATED"];
  for (const method of ["PUT", "DELETE", "PATCH", "PROPFIND"]) yield [method, { method, body }, "BAD_USER_INPUT"];
  yield ["GET as any page could", { method: "GET", anonymous: true, path: "/graphql?query=%7B__typename%7D", headers: { "content-type": "text/plain" } }, "CSRF_PREVENTION"];
  yield ["a mutation by GET", get("/graphql?query=mutation%7B__typename%7D"), "BAD_USER_INPUT"];
  yield ["a query string of 12 KB", get(`/graphql?query=${"%7Ba".repeat(3_000)}`), "DEPTH_LIMIT"];
  yield ["two queries by GET", get("/graphql?query=%7Ba%7D&query=%7Bb%7D"), "BAD_USER_INPUT"];
  yield ["broken percents", get("/graphql?query=%7B%zz%7D%"), REFUSED];
  yield ["variables that are none, by GET", get("/graphql?query=%7B__typename%7D&variables=%5B1%5D"), "BAD_USER_INPUT"];
  yield ["lists in variables, by GET", get(`/graphql?query=%7B__typename%7D&variables=${"[".repeat(5_000)}`), "DEPTH_LIMIT"];
  yield ["3,000 parameters", get(`/graphql?${"a=1&".repeat(3_000)}query=%7B__typename%7D`), "ok"];
  for (const id of ["%00", "..%2F..%2Fetc%2Fpasswd", "sha256:12", "x".repeat(257), "%F0%9F%90%9F", "a%20b", "%2e%2e", "'--"])
    yield [`a document called ${id.slice(0, 40)}`, get(`/graphql/${id}`), "BAD_USER_INPUT PERSISTED_QUERY_NOT_IN_LIST"];
  const persisted = (persistedQuery, text) => ({ body: json({ query: text, extensions: { persistedQuery } }) });
  yield ["a hash that is not the text's", persisted({ version: 1, sha256Hash: sha256("a") }, "{ __typename }"), "PERSISTED_QUERY_HASH_MISMATCH"];
  yield ["a hash of another version", persisted({ version: 2, sha256Hash: sha256("a") }), "BAD_USER_INPUT"];
  yield ["a hash that is a list", persisted({ version: 1, sha256Hash: [] }), "BAD_USER_INPUT"];
  yield ["a hash of 1 MiB", persisted({ version: 1, sha256Hash: "a".repeat(MIB) }), "BAD_USER_INPUT OVERLOADED"];
  yield ["hashes without end", { body: () => json({ extensions: { persistedQuery: { version: 1, sha256Hash: sha256(String(number++)) } } }) }, "PERSISTED_QUERY_NOT_FOUND"];
  yield ["registered documents without end", { body: () => {
    const text = `query R${number++} { me { ${many(150, () => "id displayName role email")} } }`;
    return json({ query: text, extensions: { persistedQuery: { version: 1, sha256Hash: sha256(text) } } });
  } }, "ok"];
  yield ["new documents without end", { body: () => json({ query: `query A${number++} { me { ${many(150, () => "id displayName role email")} } }` }) }, "ok"];
}

export const families = { nestedDocuments, nestedJson, counts, fragments, costs, texts, numbers, bodies, envelopes };
