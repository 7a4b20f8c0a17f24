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

/**
 * What a subgraph gets of the client's headers: who asks, with what, the trace that the call belongs to, and the token of
 * what the client wrote last. From where it asks is added (`clientOf`).
 */
const FORWARDED = [
  "authorization",
  "user-agent",
  "traceparent",
  "tracestate",
  "baggage",
  "x-request-id",
  "accept-language",
  "x-cache-token",
];
/** The token of what was written; the client's next reads carry it. */
const CACHE_TOKEN = "x-cache-token";

const JWKS = new URL(process.env.XP_JWKS ?? "http://127.0.0.1:8080/.well-known/jwks.json");
const keys = createRemoteJWKSet(JWKS);
const CLAIMS = { issuer: "xp-graph", audience: "xp-graph", algorithms: ["ES256"], typ: "at+jwt" };

class Subgraph extends RemoteGraphQLDataSource {
  willSendRequest({ request, context }) {
    // Else it would be that of the program that sends it.
    request.http.headers.set("user-agent", "");
    for (const name of FORWARDED) {
      const value = context.headers?.[name];
      if (value !== undefined) request.http.headers.set(name, String(value));
    }
    // XP Graph believes it where its setting http.trusted_proxies lists this gateway.
    if (context.client) request.http.headers.set("x-forwarded-for", context.client);
  }

  didReceiveResponse({ response, context }) {
    const token = response.http?.headers.get(CACHE_TOKEN);
    // Queries have none.
    if (token && context.written) context.written.token = token;
    return response;
  }
}

/** Gives the client the token of what it has written: in the header, and in `extensions.cacheToken`. */
const cacheTokens = {
  async requestDidStart() {
    return {
      async willSendResponse({ response, contextValue }) {
        const token = contextValue.written?.token;
        if (!token) return;
        response.http.headers.set(CACHE_TOKEN, token);
        const { body } = response;
        if (body.kind === "single") body.singleResult.extensions = { ...body.singleResult.extensions, cacheToken: token };
      },
    };
  },
};

/** The addresses that a request came by: those that proxies before this gateway have written, and who asked it. */
function clientOf({ headers, socket }) {
  return [headers["x-forwarded-for"], socket.remoteAddress].filter(Boolean).join(", ");
}

const path = process.env.SUPERGRAPH ?? fileURLToPath(new URL("../../supergraph.graphql", import.meta.url));
// Apollo Gateway refuses every supergraph whose schema says `for: SECURITY`, that is, who may read what. Each of our
// subgraphs checks this itself, for every caller: the gateway need not.
const supergraphSdl = (await readFile(path, "utf8")).replaceAll(", for: SECURITY", "");

const gateway = new ApolloGateway({
  supergraphSdl,
  buildService: ({ url }) => new Subgraph({ url }),
});
const server = new ApolloServer({ gateway, plugins: [cacheTokens], includeStacktraceInErrorResponses: false });
const { url } = await startStandaloneServer(server, {
  context: async ({ req }) => {
    await refuseBadToken(req.headers.authorization);
    return { headers: req.headers, client: clientOf(req), written: {} };
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
