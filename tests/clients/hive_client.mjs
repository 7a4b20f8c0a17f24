// Reports one operation by Hive's own client, in a thread of its own that can be ended: a timer of the client goes on
// after `dispose`. Not here: what is expected of the report (`hive.test.mjs`).
import { parentPort, workerData } from "node:worker_threads";
import { createHive } from "@graphql-hive/core";
import { buildSchema, parse } from "graphql";

const { endpoint, token, schema, query } = workerData;
const client = createHive({
  enabled: true, token, reporting: false, selfHosting: { usageEndpoint: endpoint },
  usage: { clientInfo: () => ({ name: "web", version: "1.2" }) },
});
await client.collectRequest({
  args: {
    schema: buildSchema(schema, { assumeValidSDL: true }), document: parse(query), variableValues: { n: 2 }, contextValue: {},
  },
  result: { data: {} },
  duration: 1_000_000,
});
await client.dispose();
parentPort.postMessage("reported");
