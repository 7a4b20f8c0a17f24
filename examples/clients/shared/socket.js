// One WebSocket (graphql-transport-ws) for the subscriptions of urql, Relay and the generated code. Apollo Client's come over HTTP.
import { createClient } from "graphql-ws";
import { socketEndpoint } from "./endpoint.js";

/** @param {ReturnType<typeof import("./session.js").createSession>} session */
export function createSocket(session) {
  const client = createClient({
    url: socketEndpoint,
    // Asked for at each connect: the server ends a stream with its token (4403), and the client comes back with the next one.
    connectionParams: async () => ({ authorization: `Bearer ${await session.token()}` }),
    retryAttempts: Infinity,
  });
  return {
    /** Subscribes to a published document; returns what ends it. The client wants a text: an empty one counts as none. */
    subscribe: (documentId, variables, sink) => client.subscribe({ query: "", documentId, variables }, sink),
  };
}
