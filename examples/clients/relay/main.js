// Relay's runtime without React: its store, connections, optimistic answers; documents by the ids that its compiler gave them.
import {
  Environment,
  Network,
  Observable,
  RecordSource,
  Store,
  commitMutation,
  createOperationDescriptor,
  fetchQuery,
  getRequest,
  requestSubscription,
} from "relay-runtime";
import { endpoint } from "../shared/endpoint.js";
import { start } from "../shared/page.js";
import { createSession } from "../shared/session.js";
import { createSocket } from "../shared/socket.js";
import FORMS from "./__generated__/documentsFormsQuery.graphql.js";
import RENAME from "./__generated__/documentsRenameMutation.graphql.js";
import SUBMIT from "./__generated__/documentsSubmitMutation.graphql.js";
import SUBMITTED from "./__generated__/documentsSubmittedSubscription.graphql.js";

const session = createSession(endpoint);
const socket = createSocket(session);

async function ask({ id }, variables) {
  const token = await session.token();
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ documentId: id, variables }),
  });
  return response.json();
}

function listen({ id }, variables) {
  return Observable.create((sink) => socket.subscribe(id, variables, sink));
}

const environment = new Environment({
  network: Network.create(ask, listen),
  store: new Store(new RecordSource()),
});

const mutate = (mutation, variables, optimisticResponse) =>
  new Promise((done, fail) => {
    commitMutation(environment, {
      mutation,
      variables,
      optimisticResponse,
      onCompleted: (data, errors) => (errors ? fail(new Error(errors[0].message)) : done(data)),
      onError: fail,
    });
  });

start({
  title: "XP Graph with Relay",
  session,
  listForms(show) {
    const first = 3;
    const operation = createOperationDescriptor(getRequest(FORMS), { first });
    // Without this the store forgets what nobody holds.
    environment.retain(operation);
    let forms;
    const read = ({ data }) => {
      if (!data?.forms) return;
      forms = data.forms;
      show(forms.edges.map(({ node }) => node), forms.pageInfo.hasNextPage);
    };
    fetchQuery(environment, FORMS, { first }).subscribe({
      complete() {
        const snapshot = environment.lookup(operation.fragment);
        read(snapshot);
        environment.subscribe(snapshot, read);
      },
    });
    return {
      // The connection takes up what comes after its end.
      more: () => fetchQuery(environment, FORMS, { first, after: forms.pageInfo.endCursor }).toPromise(),
    };
  },
  async rename(id, title) {
    const { updateForm } = await mutate(RENAME, { id, title }, { updateForm: { form: { id, title }, userErrors: [] } });
    const [refused] = updateForm.userErrors;
    if (refused) throw new Error(refused.message);
  },
  listen(formId, listener) {
    requestSubscription(environment, {
      subscription: SUBMITTED,
      variables: { formId },
      onNext: (data) => listener(data.submissionChanged),
    });
  },
  async submit(submissions) {
    return (await mutate(SUBMIT, { input: { submissions } })).createSubmissions.results;
  },
});
