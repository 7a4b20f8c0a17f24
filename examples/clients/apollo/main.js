// Apollo Client: its own cache, paging, optimistic answers and persisted queries. Subscriptions come over HTTP (multipart), which
// is Apollo's own way and takes ids of documents as queries do.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from "@apollo/client";
import { SetContextLink } from "@apollo/client/link/context";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { RetryLink } from "@apollo/client/link/retry";
import { relayStylePagination } from "@apollo/client/utilities";
import { generatePersistedQueryIdsFromManifest } from "@apollo/persisted-query-lists";
import { map } from "rxjs";
import { endpoint } from "../shared/endpoint.js";
import { start } from "../shared/page.js";
import { createSession } from "../shared/session.js";
import { FORMS, RENAME, SUBMIT, SUBMITTED } from "./documents.js";

const session = createSession(endpoint);

const isSubscription = ({ operationType }) => operationType === "subscription";

// In front of what makes the headers: each attempt has the token of its time. A stream ends with its token, and comes back.
const retry = new RetryLink({
  delay: { initial: 300, max: 10_000 },
  attempts: async (count, operation, error) => {
    if (error?.statusCode === 401 && count === 1) {
      await session.renew();
      return true;
    }
    return isSubscription(operation);
  },
});
const authorize = new SetContextLink(async ({ headers }) => {
  const token = await session.token();
  return { headers: token ? { ...headers, authorization: `Bearer ${token}` } : headers };
});
// A stream that comes back goes on after the last event, so that nothing is missed.
const resume = new ApolloLink((operation, forward) =>
  forward(operation).pipe(
    map((result) => {
      const { resumeToken } = result.extensions ?? {};
      if (resumeToken) operation.extensions.resumeAfter = resumeToken;
      return result;
    }),
  ),
);
const ids = generatePersistedQueryIdsFromManifest({
  loadManifest: () => import("../generated/apollo.json").then((module) => module.default),
});

const client = new ApolloClient({
  link: ApolloLink.from([new PersistedQueryLink(ids), resume, retry, authorize, new HttpLink({ uri: endpoint })]),
  cache: new InMemoryCache({ typePolicies: { Query: { fields: { forms: relayStylePagination() } } } }),
});

start({
  title: "XP Graph with Apollo Client",
  session,
  listForms(show) {
    const watched = client.watchQuery({ query: FORMS, variables: { first: 3 } });
    watched.subscribe(({ data }) => {
      if (data?.forms) show(data.forms.edges.map(({ node }) => node), data.forms.pageInfo.hasNextPage);
    });
    return {
      async more() {
        const { endCursor } = watched.getCurrentResult().data.forms.pageInfo;
        await watched.fetchMore({ variables: { after: endCursor } });
      },
    };
  },
  async rename(id, title) {
    const form = { __typename: "Form", id, title };
    const optimisticResponse = { updateForm: { __typename: "FormPayload", form, userErrors: [] } };
    const { data } = await client.mutate({ mutation: RENAME, variables: { id, title }, optimisticResponse });
    const [refused] = data.updateForm.userErrors;
    if (refused) throw new Error(refused.message);
  },
  listen(formId, listener) {
    client.subscribe({ query: SUBMITTED, variables: { formId } }).subscribe(({ data }) => {
      if (data) listener(data.submissionChanged);
    });
  },
  async submit(submissions) {
    const { data } = await client.mutate({ mutation: SUBMIT, variables: { input: { submissions } } });
    return data.createSubmissions.results;
  },
});
