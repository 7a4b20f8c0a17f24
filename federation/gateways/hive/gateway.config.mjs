// Hive Gateway over a composed supergraph: SUPERGRAPH names the file, by default the one of this repository. HOST and
// PORT say where it listens (127.0.0.1:4000). It has no account anywhere and reports to nobody.
import { fileURLToPath } from "node:url";
import { defineConfig } from "@graphql-hive/gateway";

/** What a subgraph gets of the client's headers: who asks, and the trace that the call belongs to. */
const FORWARDED = ["authorization", "traceparent", "tracestate", "baggage", "x-request-id", "accept-language"];

export const gatewayConfig = defineConfig({
  host: process.env.HOST ?? "127.0.0.1",
  port: Number(process.env.PORT ?? 4000),
  supergraph: process.env.SUPERGRAPH ?? fileURLToPath(new URL("../../supergraph.graphql", import.meta.url)),
  propagateHeaders: {
    fromClientToSubgraphs({ request }) {
      const sent = FORWARDED.map((name) => [name, request.headers.get(name)]);
      return Object.fromEntries(sent.filter(([, value]) => value !== null));
    },
  },
});
