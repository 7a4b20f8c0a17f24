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
    // Also after a connect that failed, which is no closing of a socket.
    shouldRetry: () => true,
  });
  return {
    /**
     * Subscribes to a published document; returns what ends it. The client wants a text: an empty one counts as none. It sends the
     * request at each connect as it is then: after the last event, so that nothing is missed.
     */
    subscribe(documentId, variables, sink) {
      const request = { query: "", documentId, variables, extensions: {} };
      const next = (result) => {
        if (result.extensions?.resumeToken) request.extensions.resumeAfter = result.extensions.resumeToken;
        sink.next(result);
      };
      return client.subscribe(request, { next, error: (error) => sink.error(error), complete: () => sink.complete() });
    },
  };
}
