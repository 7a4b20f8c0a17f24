// The neighbour of federation/neighbours/reviews.graphql, in memory. A test starts it with its own reviews;
// `node neighbour.mjs` starts it with a few at the address in federation/supergraph.graphql.
import { once } from "node:events";
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { pathToFileURL } from "node:url";
import { buildSubgraphSchema } from "@apollo/subgraph";
import { graphql, parse } from "graphql";
import { neighbourSdl, USUAL } from "./compose.mjs";

/**
 * @param {{id: string, stars: number, text?: string, authorId: string, formId?: string, authorName?: string}[]} reviews newest first
 * @returns {Promise<{url: string, close: () => void}>}
 */
export const startNeighbour = (reviews, port = 0) => serve(parse(neighbourSdl), resolvers(reviews), port);

/** Serves a subgraph on loopback. */
export async function serve(typeDefs, resolvers, port = 0) {
  const schema = buildSubgraphSchema({ typeDefs, resolvers });
  const server = createServer(async (request, response) => {
    const { query, variables, operationName } = await json(request);
    const answer = await graphql({ schema, source: query, variableValues: variables, operationName });
    response.setHeader("content-type", "application/json").end(JSON.stringify(answer));
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}/graphql`, close };
}

function resolvers(reviews) {
  const ofAuthor = (id) => reviews.filter(({ authorId }) => authorId === id);
  const ofForm = (id) => reviews.filter(({ formId }) => formId === id);
  const byId = (id) => reviews.find((review) => review.id === id) ?? null;
  return {
    Query: {
      latestReviews: (_, { first }) => reviews.slice(0, first),
      review: (_, { id }) => byId(id),
      lastReviewer: () => reviews[0]?.authorName && { id: reviews[0].authorId, displayName: reviews[0].authorName },
    },
    Review: {
      __resolveReference: ({ id }) => byId(id),
      author: ({ authorId }) => ({ id: authorId }),
      form: ({ formId }) => formId && { id: formId },
    },
    User: {
      reviews: ({ id }) => ofAuthor(id),
      reputation: ({ id, displayName }) => `${displayName}: ${ofAuthor(id).length} reviews`,
    },
    Form: {
      reviews: ({ id }) => ofForm(id),
      averageStars: ({ id }) => {
        const stars = ofForm(id).map((review) => review.stars);
        return stars.length === 0 ? null : stars.reduce((sum, one) => sum + one, 0) / stars.length;
      },
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const account = (number) => `01890000-0000-7000-8000-${String(number).padStart(12, "0")}`;
  const { url } = await startNeighbour(
    [
      { id: "2", stars: 5, text: "Clear and quick.", authorId: account(2) },
      { id: "1", stars: 3, text: "Too many questions.", authorId: account(1) },
    ],
    Number(new URL(USUAL.reviews).port),
  );
  console.log(`Neighbour: ${url}`);
}
