// Streams as they come over HTTP, read without the help of a client, and the form whose submissions they tell. Not here: what is done
// with them.
import assert from "node:assert/strict";

/** The events of a response of server-sent events. */
export async function* sseEvents(response) {
  for await (const block of pieces(response, "\n\n")) {
    const event = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trim();
    }
    if (event.event) yield event;
  }
}

/** The parts of a response of Apollo's multipart protocol that say more than that it is alive. */
export async function* multipartEvents(response) {
  for await (const part of pieces(response, "\r\n--graphql")) {
    const body = part.indexOf("\r\n\r\n");
    if (body < 0) continue;
    const said = JSON.parse(part.slice(body));
    if (Object.keys(said).length > 0) yield said;
  }
}

/** What stands before each of these marks. */
async function* pieces(response, mark) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of response.body) {
    const all = (rest + decoder.decode(bytes, { stream: true })).split(mark);
    rest = all.pop();
    yield* all;
  }
}

/** A form that takes a number, made and opened by who has this token. */
export async function openForm(xp, token) {
  const definition = { schema: 1, fields: [{ key: "number", type: "INTEGER", label: "Number" }] };
  const create = 'mutation($d: JSON!) { createForm(input: { title: "Numbers", definition: $d }) { form { id } } }';
  const { id } = (await xp.ask(token, create, { d: definition })).createForm.form;
  await xp.ask(token, "mutation($id: ID!) { publishForm(input: { id: $id, baseRevision: 1 }) { form { status } } }", { id });
  return id;
}

/** Submits this number. */
export async function submit(xp, token, form, number) {
  const query =
    "mutation($input: CreateSubmissionInput!) { createSubmission(input: $input) { submission { id } userErrors { message } } }";
  const { createSubmission } = await xp.ask(token, query, { input: { formId: form, data: { number } } });
  assert.deepEqual(createSubmission.userErrors, []);
  return createSubmission.submission.id;
}

/** A token that stands for this moment: what is subscribed to with it begins here. */
export async function resumeToken(xp, token) {
  const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
  const body = JSON.stringify({ query: "{ me { id } }", extensions: { resumeToken: true } });
  const { extensions } = await (await fetch(xp.url, { method: "POST", headers, body })).json();
  return extensions.resumeToken;
}
