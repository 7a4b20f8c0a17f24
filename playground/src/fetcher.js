// How the page talks to the graph: JSON over POST, subscriptions over graphql-transport-ws with the request headers as
// the `connection_init` payload. It knows no editor and no account.
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { parse } from "graphql";

const ACCEPT = "application/graphql-response+json, application/json;q=0.9";

/** The fetcher GraphiQL calls for each run of an operation. */
export function createFetcher(endpoint) {
  const url = new URL(endpoint, window.location.href);
  const socket = new URL(url);
  socket.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const fetcher = createGraphiQLFetcher({
    url: url.href,
    subscriptionUrl: socket.href,
    headers: { accept: ACCEPT },
    enableIncrementalDelivery: false,
  });
  // Which transport it takes follows from the document. GraphiQL hands over the one it parsed last, which right after
  // a tab was opened is still the other tab's.
  return (params, options) => fetcher(params, { ...options, documentAST: parsed(params.query) ?? options?.documentAST });
}

function parsed(query) {
  try {
    return parse(query);
  } catch {
    return undefined; // The server says what is wrong with it.
  }
}

/** One query outside the editors, such as the ids an example needs. Throws with the first error's text. */
export async function ask(endpoint, headers, query, variables = {}) {
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { ...headers, accept: ACCEPT, "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (!data) throw new Error(errors?.[0]?.message ?? `the server answered ${response.status}`);
  return data;
}
