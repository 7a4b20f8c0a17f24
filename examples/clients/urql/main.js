// urql with Graphcache: a normalised cache, paging, optimistic answers; documents by the ids that graphql-codegen gave them.
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { persistedExchange } from "@urql/exchange-persisted";
import * as documents from "../generated/urql/graphql.ts";
import { endpoint } from "../shared/endpoint.js";
import { start } from "../shared/page.js";
import { createSession } from "../shared/session.js";
import { createSocket } from "../shared/socket.js";
import { liveExchange } from "./live.js";

const { FormsDocument, RenameDocument, SubmitDocument, SubmittedDocument, TotalDocument } = documents;
const session = createSession(endpoint);
const socket = createSocket(session);

const nameOf = (document) => document.definitions[0].name.value;
// By name: the cache makes documents of its own from these, which keep the name.
const hashes = new Map(
  [FormsDocument, RenameDocument, SubmitDocument, SubmittedDocument, TotalDocument].map((document) => [
    nameOf(document),
    document.__meta__.hash,
  ]),
);

const client = new Client({
  url: endpoint,
  // Where urql asks for a token is synchronous; here it may be awaited, and each attempt has the token of its time.
  fetch: async (url, options) => {
    const token = await session.token();
    return fetch(url, { ...options, headers: { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) } });
  },
  preferGetMethod: false,
  exchanges: [
    liveExchange(({ query, variables }, sink) => socket.subscribe(hashes.get(nameOf(query)), variables, sink)),
    cacheExchange({
      // What has no id is part of what it was asked with.
      keys: { CreateSubmissionsPayload: () => null, SubmissionPayload: () => null, FormPayload: () => null },
      resolvers: { Query: { forms: relayPagination() } },
      optimistic: {
        updateForm: ({ input: { id, title } }) => ({
          __typename: "FormPayload",
          form: { __typename: "Form", id, title },
          userErrors: [],
        }),
      },
    }),
    persistedExchange({
      enforcePersistedQueries: true,
      enableForMutation: true,
      preferGetForPersistedQueries: false,
      generateHash: async (_, document) => hashes.get(nameOf(document)),
    }),
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: (_, { query, variables }) => ({
        subscribe: (sink) => ({
          unsubscribe: socket.subscribe(hashes.get(nameOf(query)), variables, sink),
        }),
      }),
    }),
  ],
});

/** The data of an answer; throws what is wrong with it. */
async function done(answer) {
  const { data, error } = await answer.toPromise();
  if (error) throw error;
  return data;
}

start({
  title: "XP Graph with urql",
  session,
  listForms(show) {
    const first = 3;
    let forms;
    client.query(FormsDocument, { first }).subscribe(({ data }) => {
      if (!data) return;
      forms = data.forms;
      show(forms.edges.map(({ node }) => node), forms.pageInfo.hasNextPage);
    });
    return {
      // The next page goes into the cache, which joins it to the first: whoever reads that one sees both.
      more: () => done(client.query(FormsDocument, { first, after: forms.pageInfo.endCursor })),
    };
  },
  async rename(id, title) {
    const { updateForm } = await done(client.mutation(RenameDocument, { id, title }));
    const [refused] = updateForm.userErrors;
    if (refused) throw new Error(refused.message);
  },
  listen(formId, listener) {
    client.subscription(SubmittedDocument, { formId }).subscribe(({ data }) => {
      if (data) listener(data.submissionChanged);
    });
  },
  watchTotal(show) {
    client.query(TotalDocument, {}).subscribe(({ data }) => {
      if (data) show(data.forms.totalCount);
    });
  },
  async submit(submissions) {
    const { createSubmissions } = await done(client.mutation(SubmitDocument, { input: { submissions } }));
    return createSubmissions.results;
  },
});
