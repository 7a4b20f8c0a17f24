// When the tokens of who has signed in are exchanged for the next: shortly before they end, and where that fails, again and again
// until the server has answered. Only what the server refuses ends the sign-in. How a token is exchanged is in session.js.
import { NotReached } from "./errors.js";
import { isRefusal, refresh } from "./session.js";

/** How long before its end an access token is exchanged. */
const EARLY_MS = 30_000;
/** Between two attempts: twice as long each time, up to the longest. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

/**
 * Keeps these tokens fresh until what it returns is called. `renewed` gets the account with its next tokens, or null where its
 * session has ended; `say` what a person should know meanwhile, "" once there is nothing.
 */
export function keepFresh(endpoint, signedIn, { renewed, say }) {
  let timer;
  let isOver = false;
  let failures = 0;
  const attempt = async () => {
    clearTimeout(timer);
    try {
      const next = await refresh(endpoint, signedIn);
      if (isOver) return;
      say("");
      renewed(next);
    } catch (error) {
      if (isOver) return;
      if (isRefusal(error)) {
        say("Your session has ended. Sign in again.");
        renewed(null);
        return;
      }
      say(whyNot(error));
      plan(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures));
      failures += 1;
    }
  };
  const plan = (ms) => {
    timer = setTimeout(attempt, ms);
  };
  if (signedIn.token) plan(Math.max(0, signedIn.expiresAt - EARLY_MS - Date.now()));
  else {
    // The attempt that was made while the page was loaded has failed.
    failures = 1;
    say(whyNot(signedIn.problem));
    plan(FIRST_PAUSE_MS);
  }
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

function whyNot(error) {
  const reason = error instanceof NotReached ? error.message : `The session is not renewed yet: ${error.message}`;
  return `${reason} You stay signed in, and it is tried again.`;
}
