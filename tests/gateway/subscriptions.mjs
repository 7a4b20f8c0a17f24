// Clients of subscriptions through a gateway: over WebSocket (graphql-ws) and as server-sent events. Each gives the
// answers one by one, and ends the subscription when it is left.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { ask, bearer, endpoint } from "./xp.mjs";

export const transports = {
  async *websocket(gateway, query, token) {
    const client = createClient({
      url: gateway.socketUrl,
      webSocketImpl: WebSocket,
      connectionParams: bearer(token),
      retryAttempts: 0,
    });
    try {
      yield* client.iterate({ query });
    } finally {
      await client.dispose();
    }
  },
  async *sse(gateway, query, token) {
    const stop = new AbortController();
    const headers = { "content-type": "application/json", accept: "text/event-stream", ...bearer(token) };
    const body = JSON.stringify({ query });
    const response = await fetch(gateway.url, { method: "POST", headers, body, signal: stop.signal });
    try {
      let text = "";
      for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
        text += chunk.replaceAll("\r", "");
        const messages = text.split("\n\n");
        text = messages.pop();
        for (const message of messages) {
          const [, data] = message.match(/^event: ?next\n(?:.*\n)*?data: ?(.+)$/m) ?? [];
          if (data) yield JSON.parse(data);
        }
      }
    } finally {
      stop.abort();
    }
  },
};

const EVENT_WITHIN_MS = 30_000;

const atServer = (token) => (query, variables) => ask(endpoint, { query, variables }, bearer(token));

/**
 * Records positions, each a little further north, until the first event comes; says which event. `write` runs a mutation of
 * the token's account.
 */
export async function firstEvent(events, token, write = atServer(token)) {
  let done = false;
  const event = events.next().finally(() => (done = true));
  const until = Date.now() + EVENT_WITHIN_MS;
  for (let latitude = 1; !done; latitude += 1 / 1024) {
    assert.ok(Date.now() < until, "no event came");
    const point = { timestamp: new Date().toISOString(), latitude, longitude: 13.4 };
    const query = "mutation ($input: RecordLocationsInput!) { recordLocations(input: $input) { acceptedCount } }";
    await write(query, { input: { points: [point] } });
    await Promise.race([event, sleep(100)]);
  }
  const { value } = await event;
  await events.return();
  return value;
}
