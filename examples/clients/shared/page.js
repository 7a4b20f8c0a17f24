// What the four apps look like: signing in, a list of forms that can be read on and renamed, submissions as they come, and a
// button that makes one. An app hands over how it does each of these with its library. No GraphQL here.
import "./page.css";
import { createOutbox } from "./outbox.js";

/**
 * @typedef {object} App
 * @property {string} title
 * @property {ReturnType<typeof import("./session.js").createSession>} session
 * @property {(show: (forms: {id: string, title: string, submissionCount: number}[], hasMore: boolean) => void) => {more: () => Promise<void>}} listForms
 *   shows the forms, and again whenever one changes
 * @property {(id: string, title: string) => Promise<void>} rename shows the new title before the server has answered
 * @property {(formId: string, listener: (submission: {id: string}) => void) => void} listen
 * @property {(show: (count: number) => void) => void} [watchTotal] shows how many forms there are, and again whenever that changes
 * @property {(submissions: object[]) => Promise<{userErrors: object[]}[]>} submit
 */

/** @param {App} app */
export function start({ title, session, listForms, rename, listen, watchTotal, submit }) {
  document.title = title;
  const root = document.getElementById("app");
  root.innerHTML = `
    <h1></h1>
    <form id="sign-in">
      <label>E-mail <input name="email" type="email" autocomplete="username" required></label>
      <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
      <button>Sign in</button>
    </form>
    <p id="who" role="status"></p>
    <p id="problem" role="alert"></p>
    <section aria-label="Forms" hidden><ul></ul><p id="total"></p><button id="more" type="button">More</button></section>
    <section aria-label="Submissions" hidden>
      <p>Waiting to be sent: <output id="waiting">0</output></p>
      <button id="submit" type="button">Submit to the first form</button>
      <ol></ol>
    </section>`;
  const find = (selector) => root.querySelector(selector);
  find("h1").textContent = title;
  const attempt = async (work) => {
    find("#problem").textContent = "";
    try {
      return await work();
    } catch (error) {
      find("#problem").textContent = error.message;
    }
  };
  const outbox = createOutbox(`outbox of ${title}`, submit, (_, userErrors) => {
    find("#problem").textContent = `The submission is refused: ${userErrors.map(({ message }) => message).join(" ")}`;
  });
  outbox.watch((waiting) => (find("#waiting").value = waiting));

  find("#sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    attempt(async () => {
      find("#who").textContent = await session.signIn(fields.get("email"), fields.get("password"));
      for (const section of root.querySelectorAll("section")) section.hidden = false;
      show();
      await outbox.flush();
    });
  });

  function show() {
    let first = null;
    const list = listForms((forms, hasMore) => {
      find("section ul").replaceChildren(...forms.map(row));
      find("#more").hidden = !hasMore;
      if (first || !forms.length) return;
      first = forms[0].id;
      listen(first, ({ id }) => find("section ol").append(item(id)));
      find("#submit").onclick = () => outbox.add({ formId: first, data: { name: "Example", number: Date.now() % 1000 } });
    });
    find("#more").onclick = () => attempt(list.more);
    watchTotal?.((count) => (find("#total").textContent = `Forms in all: ${count}`));
  }

  function row({ id, title, submissionCount }) {
    const line = item(`${title} (${submissionCount})`);
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Rename" });
    button.onclick = () => attempt(() => rename(id, `${title.replace(/ ✓$/, "")} ✓`));
    line.append(" ", button);
    return line;
  }
}

function item(text) {
  return Object.assign(document.createElement("li"), { textContent: text });
}
