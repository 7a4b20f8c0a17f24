// Apollo Gateway over a composed supergraph: SUPERGRAPH names the file, by default the one of this repository. HOST and
// PORT say where it listens (127.0.0.1:4000), XP_JWKS where the public keys of access tokens are. Composing is not done
// here. It cannot pass on subscriptions: clients ask XP Graph for them directly, or another gateway.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { ApolloGateway, RemoteGraphQLDataSource } from "@apollo/gateway";
import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { GraphQLError } from "graphql";
import { createRemoteJWKSet, jwtVerify } from "jose";

/** What a subgraph gets of the client's headers: who asks, and the trace that the call belongs to. */
const FORWARDED = ["authorization", "traceparent", "tracestate", "baggage", "x-request-id", "accept-language"];

const JWKS = new URL(process.env.XP_JWKS ?? "http://127.0.0.1:8080/.well-known/jwks.json");
const keys = createRemoteJWKSet(JWKS);
const CLAIMS = { issuer: "xp-graph", audience: "xp-graph", algorithms: ["ES256"], typ: "at+jwt" };

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
  context: async ({ req }) => {
    await refuseBadToken(req.headers.authorization);
    return { headers: req.headers };
  },
  listen: { host: process.env.HOST ?? "127.0.0.1", port: Number(process.env.PORT ?? 4000) },
});
console.log(`Apollo Gateway: ${url}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => server.stop().then(() => process.exit(0)));
}

/** No token is anonymous; a bad one goes no further. Whether a good one was revoked, the subgraph knows. */
async function refuseBadToken(authorization) {
  if (authorization === undefined) return;
  try {
    await jwtVerify(authorization.replace(/^bearer /i, ""), keys, CLAIMS);
  } catch {
    throw new GraphQLError("The access token is not valid.", {
      extensions: { code: "UNAUTHENTICATED", http: { status: 401 } },
    });
  }
}
