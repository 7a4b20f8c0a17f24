// The dialog behind "Sign in" and "Sessions": a form to sign in with, and the sessions of who has signed in, each with a
// button to end it. What is sent is in session.js; which account the editors use is decided by the app.
import { useEffect, useRef, useState } from "react";
import { liveSessions, revokeSession, signIn, signOut } from "./session.js";

export function AccountButton({ config, signedIn, onSignedIn }) {
  const dialog = useRef(null);
  const [isOpen, setOpen] = useState(false);
  function open() {
    setOpen(true);
    dialog.current.showModal();
  }
  return (
    <>
      <button type="button" className="xp-button" onClick={open}>
        {signedIn ? "Sessions" : "Sign in"}
      </button>
      <dialog
        ref={dialog}
        className="xp-dialog"
        aria-label={signedIn ? "Sessions" : "Sign in"}
        onClose={() => setOpen(false)}
      >
        {isOpen &&
          (signedIn ? (
            <Sessions endpoint={config.endpoint} account={signedIn} onSignedOut={() => onSignedIn(null)} />
          ) : (
            <SignInForm config={config} onSignedIn={onSignedIn} />
          ))}
        <form method="dialog">
          <button className="xp-button">Close</button>
        </form>
      </dialog>
    </>
  );
}

function SignInForm({ config, onSignedIn }) {
  const [problem, setProblem] = useState("");
  const demo = config.accounts.find(({ password }) => password);
  async function submit(event) {
    event.preventDefault();
    const fields = new FormData(event.currentTarget);
    setProblem("");
    try {
      onSignedIn(await signIn(config.endpoint, { email: fields.get("email"), password: fields.get("password") }));
    } catch (error) {
      setProblem(error.message);
    }
  }
  return (
    <form className="xp-form" onSubmit={submit}>
      <h2>Sign in</h2>
      <label>
        E-mail <input className="xp-input" name="email" type="email" autoComplete="username" required defaultValue={demo?.name} />
      </label>
      <label>
        Password <input className="xp-input" name="password" type="password" autoComplete="current-password" required />
      </label>
      {demo && (
        <p className="xp-hint">
          The demo accounts have the password <code>{demo.password}</code>.
        </p>
      )}
      <p className="xp-problem" role="alert">{problem}</p>
      <button className="xp-button">Sign in</button>
    </form>
  );
}

function Sessions({ endpoint, account, onSignedOut }) {
  const [sessions, setSessions] = useState([]);
  const [problem, setProblem] = useState("");
  async function attempt(work) {
    setProblem("");
    try {
      await work();
    } catch (error) {
      setProblem(error.message);
    }
  }
  const load = () => attempt(async () => setSessions(await liveSessions(endpoint, account)));
  // Once when the dialog opens; tokens that are refreshed meanwhile change nothing in the list.
  useEffect(() => void load(), []);
  const end = (session) =>
    attempt(async () => {
      if (session.isCurrent) {
        await signOut(endpoint, account);
        onSignedOut();
      } else {
        await revokeSession(endpoint, account, session.id);
        setSessions(await liveSessions(endpoint, account));
      }
    });
  return (
    <section className="xp-form">
      <h2>Sessions of {account.name}</h2>
      <p className="xp-problem" role="alert">{problem}</p>
      <ul className="xp-list xp-sessions">
        {sessions.map((session) => (
          <li key={session.id}>
            <span>
              <strong>{session.name ?? "Session"}</strong>
              {session.isCurrent && " (this one)"}
              <br />
              <small>
                {session.ipAddress ?? "unknown address"}, since {new Date(session.createdAt).toLocaleString()}
              </small>
            </span>
            <button type="button" className="xp-button" onClick={() => end(session)}>
              {session.isCurrent ? "Sign out" : "End"}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
