// Subscriptions and live queries over graphql-transport-ws, with the request's headers as the payload of `connection_init`. A
// connection that is lost is opened again, and what becomes of it is told to the run. After the first event nothing is lost
// meanwhile: a subscription goes on after the last event that came, a live query gets a whole answer. No drawing here.
import { createClient } from "graphql-ws";
import { changesBetween } from "./changes.js";
import { toShow } from "./errors.js";
import { payload, split } from "./payload.js";
import { currentHeaders } from "./tokens.js";
import * as runs from "./runs.js";

/** How often in a row a lost connection is opened again. */
const ATTEMPTS = 8;
/** Between two attempts: twice as long each time, up to the longest. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
/** A connection that says nothing for so long is asked whether it still stands, and given up where no answer comes. */
const SILENCE_MS = 15_000;
const PONG_MS = 5_000;
/** "Request timeout": what a client closes with that gets no answer to its ping. */
const GONE = 4408;

/** The events of a subscription, or the answers of a live query, as GraphiQL iterates over them. */
export function listen(url, { request, headers, kind, isLive, explains }) {
  const run = runs.begin({ kind, isLive, request, headers, state: "connecting" });
  const began = performance.now();
  const client = connect(url, headers, run, () => Boolean(asked.extensions?.resumeAfter));
  // It is written anew each time that a connection is opened.
  const asked = { ...payload(request, explains) };
  const source = client.iterate(asked);
  let isOver = false;
  let before;
  const end = (change) => {
    if (isOver) return;
    isOver = true;
    run.update({ state: "ended", retry: undefined, ms: performance.now() - began, ...change });
    run.seal();
    // It waits for a connection that is being made, and fails with it.
    Promise.resolve(client.dispose()).catch(() => {});
  };
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      try {
        const { done, value } = await source.next();
        if (done) end();
        else {
          const { shown, explain, resumeToken } = split(value, explains);
          if (resumeToken) asked.extensions = { ...asked.extensions, resumeAfter: resumeToken };
          const text = JSON.stringify(shown, null, 2);
          const bytes = new TextEncoder().encode(JSON.stringify(value)).length;
          const changes = isLive && before ? changesBetween(before, shown) : undefined;
          before = shown;
          run.addEvent({ at: new Date(), ms: performance.now() - began, bytes, explain, resumeToken, text, changes });
          return { done, value: shown };
        }
        return { done, value };
      } catch (error) {
        const problem = error instanceof CloseEvent ? said(error) : undefined;
        end({ state: "failed", problem: problem ?? messageOf(error) });
        throw toShow(problem ? new Error(problem) : error);
      }
    },
    return() {
      end();
      return source.return();
    },
  };
}

/** A connection that comes back, and tells the run of each change. */
function connect(url, headers, run, resumes) {
  const address = new URL(url);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  let socket = null;
  let hasStood = false;
  let lostAt = null;
  let pong = null;
  const note = (entry) => run.addConnection({ at: new Date(), ...entry });
  return createClient({
    url: address.href,
    connectionParams: () => currentHeaders(headers),
    retryAttempts: ATTEMPTS,
    retryWait: (retries) => wait(run, retries + 1),
    keepAlive: SILENCE_MS,
    on: {
      opened: (opened) => {
        socket = opened;
      },
      connected: () => {
        run.update({ state: "listening", problem: undefined, retry: undefined });
        note({ kind: "connected", downMs: lostAt === null ? undefined : performance.now() - lostAt, resumes: resumes() });
        hasStood = true;
        lostAt = null;
      },
      ping: (received) => {
        if (!received) pong = setTimeout(() => socket.close(GONE, "A ping was not answered"), PONG_MS);
      },
      pong: (received) => received && clearTimeout(pong),
      closed: (event) => {
        clearTimeout(pong);
        if (event.code === 1000) return;
        run.update({ state: "reconnecting", problem: said(event) });
        if (!hasStood || lostAt !== null) return;
        note({ kind: "lost", text: said(event) });
        lostAt = performance.now();
      },
    },
  });
}

/** Until the next attempt: some time, or until a person or the network says that it may be made now. */
function wait(run, attempt) {
  const ms = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (attempt - 1)) * (0.75 + Math.random() / 2);
  return new Promise((done) => {
    const now = () => {
      clearTimeout(timer);
      window.removeEventListener("online", now);
      run.update({ retry: { attempt, of: ATTEMPTS } });
      done();
    };
    const timer = setTimeout(now, ms);
    window.addEventListener("online", now);
    run.update({ retry: { attempt, of: ATTEMPTS, at: Date.now() + ms, now } });
  });
}

/** What the server or the client says is wrong: it is one error, or a list of those of GraphQL. */
function messageOf(error) {
  if (Array.isArray(error)) return error.map(({ message }) => message).join(" ");
  return error.message ?? JSON.stringify(error);
}

function said({ code, reason }) {
  return `closed with ${code}${reason ? ` ${reason}` : ""}`;
}
