// No client library: graphql-codegen's documents, `fetch`, and a list of its own. What a cache does for the others is done by hand.
import { FormsDocument, RenameDocument, SubmitDocument, SubmittedDocument } from "../generated/fetch/graphql.ts";
import { endpoint } from "../shared/endpoint.js";
import { start } from "../shared/page.js";
import { createSession } from "../shared/session.js";
import { createSocket } from "../shared/socket.js";

const session = createSession(endpoint);
const socket = createSocket(session);

/** `sha256:` and the hash of the text, as the compiler wrote it down. */
const idOf = (document) => document.__meta__.hash;

/** The data of an answer; a token that was refused before its time is made anew once. */
async function ask(document, variables, isSecond = false) {
  const token = await session.token();
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ documentId: idOf(document), variables }),
  });
  if (response.status === 401 && token && !isSecond) {
    await session.renew();
    return ask(document, variables, true);
  }
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return data;
}

let forms = [];
let page;
let redraw = () => {};

function change(id, values) {
  forms = forms.map((form) => (form.id === id ? { ...form, ...values } : form));
  redraw();
}

async function readOn() {
  const data = await ask(FormsDocument, { first: 3, after: page?.endCursor });
  page = data.forms.pageInfo;
  // A form that was made meanwhile moves the others on: none is shown twice.
  const known = new Set(forms.map(({ id }) => id));
  forms = [...forms, ...data.forms.edges.map(({ node }) => node).filter(({ id }) => !known.has(id))];
  redraw();
}

start({
  title: "XP Graph with generated code and fetch",
  session,
  listForms(show) {
    redraw = () => show(forms, page.hasNextPage);
    readOn();
    return { more: readOn };
  },
  async rename(id, title) {
    const before = forms.find((form) => form.id === id).title;
    change(id, { title });
    try {
      const { updateForm } = await ask(RenameDocument, { id, title });
      const [refused] = updateForm.userErrors;
      if (refused) throw new Error(refused.message);
      change(id, updateForm.form);
    } catch (error) {
      change(id, { title: before });
      throw error;
    }
  },
  listen(formId, listener) {
    socket.subscribe(idOf(SubmittedDocument), { formId }, {
      next({ data }) {
        if (!data) return;
        const { form } = data.submissionChanged;
        change(form.id, { submissionCount: form.submissionCount });
        listener(data.submissionChanged);
      },
      error: (error) => console.warn("the subscription has ended:", error),
      complete: () => {},
    });
  },
  async submit(submissions) {
    return (await ask(SubmitDocument, { input: { submissions } })).createSubmissions.results;
  },
});
