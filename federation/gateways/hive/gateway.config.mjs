// Hive Gateway over a composed supergraph: SUPERGRAPH names the file, by default the one of this repository. HOST and
// PORT say where it listens (127.0.0.1:4000), XP_JWKS where the public keys of access tokens are. It has no account
// anywhere and reports to nobody. Subscriptions come from the subgraphs as server-sent events, each under the token of
// its subscriber, and go to clients as server-sent events or over WebSocket.
import { fileURLToPath } from "node:url";
import { createRemoteJwksSigningKeyProvider, defineConfig, extractFromHeader } from "@graphql-hive/gateway";

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

const JWKS = process.env.XP_JWKS ?? "http://127.0.0.1:8080/.well-known/jwks.json";

export const gatewayConfig = defineConfig({
  host: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 4000),
  supergraph: process.env.SUPERGRAPH ?? fileURLToPath(new URL("../../supergraph.graphql", import.meta.url)),
  propagateHeaders: {
    fromClientToSubgraphs({ request, context }) {
      // Over WebSocket the client's words come in `connection_init`.
      const said = context?.connectionParams ?? {};
      const sent = FORWARDED.map((name) => [name, request.headers.get(name) ?? said[name]]);
      // XP Graph believes it where its setting http.trusted_proxies lists this gateway.
      sent.push(["x-forwarded-for", clientOf(request, context)]);
      // Else it would be this program's own.
      sent.unshift(["user-agent", ""]);
      return Object.fromEntries(sent.filter(([, value]) => typeof value === "string"));
    },
  },
  plugins: () => [cacheTokens()],
  // Else it asks for subscriptions by GET, which our server takes from nobody without more ado.
  transportEntries: { "*.http": { options: { method: "POST" } } },
  // No token is anonymous; a bad one goes no further. Whether a good one was revoked, the subgraph knows.
  jwt: {
    signingKeyProviders: [createRemoteJwksSigningKeyProvider({ jwksUri: JWKS })],
    tokenLookupLocations: [
      extractFromHeader({ name: "authorization", prefix: "Bearer" }),
      fromConnectionInit,
    ],
    tokenVerification: { issuer: "xp-graph", audience: "xp-graph", algorithms: ["ES256"] },
    reject: { missingToken: false, invalidToken: true },
    // The subgraph verifies the token itself and takes nobody's word for it.
    forward: { payload: false, token: false },
  },
});

/** The addresses that a request came by: those that proxies before this gateway have written, and who asked it. */
function clientOf(request, context) {
  const socket = context?.req?.socket ?? context?.extra?.request?.socket;
  return [request.headers.get("x-forwarded-for"), socket?.remoteAddress].filter(Boolean).join(", ") || undefined;
}

/** Gives the client the token of what it has written: in the header, and in `extensions.cacheToken`. */
function cacheTokens() {
  const written = new WeakMap();
  return {
    onSubgraphExecute({ executionRequest }) {
      const { context } = executionRequest;
      return ({ result }) => {
        const token = result?.extensions?.cacheToken;
        if (token && context) written.set(context, token);
      };
    },
    onExecute({ args }) {
      return {
        onExecuteDone({ result, setResult }) {
          const token = written.get(args.contextValue);
          if (token && !(Symbol.asyncIterator in result)) {
            setResult({ ...result, extensions: { ...result.extensions, cacheToken: token } });
          }
        },
      };
    },
    onResponse({ response, serverContext }) {
      const token = written.get(serverContext);
      if (token) response.headers.set(CACHE_TOKEN, token);
    },
  };
}

/** Over WebSocket the token comes in `connection_init`, as it would in the header. */
function fromConnectionInit({ serverContext }) {
  const { authorization } = serverContext?.connectionParams ?? {};
  const [, token] = String(authorization).match(/^Bearer (.+)$/) ?? [];
  return token && { token, prefix: "Bearer" };
}
