// How the page talks to the graph: JSON over POST; subscriptions and live queries are listen.js's. What was sent and what came is
// told to `runs`. It knows no editor and no drawing.
import { getOperationAST, parse } from "graphql";
import { NotReached, toShow } from "./errors.js";
import { normalHeaders } from "./headers.js";
import { listen } from "./listen.js";
import { payload, split, splitAll } from "./payload.js";
import { currentHeaders } from "./tokens.js";
import * as runs from "./runs.js";
import { explains } from "./settings.js";

/** The header by which the cost is asked for, and told. */
const COST = "graphql-cost";
const ACCEPT = "application/graphql-response+json, application/json;q=0.9";
/** How GraphiQL calls its question about the schema. */
export const INTROSPECTION = "IntrospectionQuery";

/**
 * The fetcher GraphiQL calls for each run of an operation.
 * @param {{endpoint: string, explains: boolean}} config whether the server explains answers
 */
export function createFetcher(config) {
  const url = new URL(config.endpoint, window.location.href).href;
  return ({ query, variables, operationName: chosen }, { headers: written = {} } = {}) => {
    const headers = normalHeaders(written);
    const { operationName, kind, isLive } = operationOf(query, chosen);
    const request = { query, variables, operationName };
    if (operationName === INTROSPECTION) return ask(url, currentHeaders(headers), request);
    const asked = { request, headers, kind, isLive, explains: config.explains && explains() };
    if (kind !== "subscription" && !isLive) return send(url, asked);
    const name = isLive ? "live query" : "subscription";
    if (Array.isArray(variables)) refuse(asked, `A ${name} takes one set of variables, not a list of them.`);
    return listen(url, asked);
  };
}

/**
 * Which operation of a document is meant, its kind, and whether it is a live query, from which the transport follows. For a
 * moment after a change the editor names one of the text before: then the document's own is meant, if it has one only. What
 * cannot be read goes to the server, which says why.
 */
export function operationOf(query, operationName) {
  try {
    const document = parse(query);
    const named = getOperationAST(document, operationName);
    const operation = named ?? getOperationAST(document);
    const kind = operation?.operation ?? "query";
    const isLive = kind === "query" && Boolean(operation?.directives?.some(({ name }) => name.value === "live"));
    return { operationName: named ? operationName : undefined, kind, isLive };
  } catch {
    return { operationName, kind: "query", isLive: false };
  }
}

/** Says why an operation is not sent. */
function refuse({ request, headers, kind, isLive }, problem) {
  runs.begin({ kind, isLive, request, headers, state: "failed", problem });
  throw toShow(new Error(`Request not sent. ${problem}`));
}

async function send(url, { request, headers, kind, explains }) {
  const run = runs.begin({ kind, request, headers });
  const began = performance.now();
  try {
    const asking = { ...headers, [COST]: "report" };
    const { response, bytes, answer } = await post(url, asking, payload(request, explains));
    const { shown, ...told } = Array.isArray(answer) ? ofSets(answer, explains) : split(answer, explains);
    run.update({
      state: "done",
      status: response.status,
      ms: performance.now() - began,
      bytes,
      cache: cacheOf(response.headers),
      cost: costOf(response.headers),
      requestId: response.headers.get("x-request-id"),
      ...told,
    });
    return shown;
  } catch (error) {
    run.update({ state: "failed", ms: performance.now() - began, problem: error.message });
    throw toShow(error);
  }
}

/** The answers to a list of sets of variables. GraphiQL would put a list together as parts of one answer: to it they are one. */
function ofSets(answers, explains) {
  const { shown, explains: told } = splitAll(answers, explains);
  const failed = answers.filter(({ errors }) => errors?.length > 0).length;
  return {
    shown: { toJSON: () => shown },
    sets: { count: answers.length, failed },
    explain: told[0]?.explain,
    explains: told,
  };
}

/** What an answer's headers say of caches: how long it may be kept, and how old it is. */
function cacheOf(headers) {
  const age = headers.get("age");
  return [headers.get("cache-control"), age && `age ${age} s`].filter(Boolean).join(", ");
}

/** What the operation may load, and how much it may be: `103; limit=10000`. */
function costOf(headers) {
  const [, cost, limit] = /^(\d+); *limit=(\d+)$/.exec(headers.get(COST) ?? "") ?? [];
  return cost && `${cost} of ${limit}`;
}

async function post(url, headers, body) {
  const response = await fetch(url, {
    method: "POST",
    headers: { ...headers, accept: ACCEPT, "content-type": "application/json" },
    body: JSON.stringify(body),
  }).catch((error) => {
    // A header that cannot be sent is refused by the browser, whatever the network does.
    throw isSendable(headers) ? new NotReached() : error;
  });
  const bytes = await response.arrayBuffer().catch(() => {
    throw new NotReached();
  });
  const text = new TextDecoder().decode(bytes);
  try {
    return { response, bytes: bytes.byteLength, answer: JSON.parse(text) };
  } catch {
    throw new Error(`The server answered ${response.status} without JSON: ${text.slice(0, 200)}`);
  }
}

function isSendable(headers) {
  try {
    return Boolean(new Headers(headers));
  } catch {
    return false;
  }
}

/** The whole answer to a question of the page's own. */
async function ask(url, headers, request) {
  return (await post(url, headers, request)).answer;
}

/** One query outside the editors, such as the ids an example needs. Throws with the first error's text and code. */
export async function query(endpoint, headers, text, variables = {}) {
  const { response, answer } = await post(endpoint, headers, { query: text, variables });
  if (answer.data) return answer.data;
  const [first] = answer.errors ?? [];
  const error = new Error(first?.message ?? `the server answered ${response.status}`);
  throw Object.assign(error, { code: first?.extensions?.code });
}
