// Live queries with urql: what has `@live` goes over the WebSocket, in front of the cache, where each answer replaces the one before.
// Not here: which document is sent, and by which id.
import { makeErrorResult, makeResult } from "@urql/core";
import { filter, make, merge, mergeMap, pipe, share, takeUntil } from "wonka";

function isLive({ kind, query }) {
  const [{ directives = [] }] = query.definitions;
  return kind === "query" && directives.some(({ name }) => name.value === "live");
}

/** @param {(operation: import("@urql/core").Operation, sink: object) => () => void} subscribe returns what ends it */
export const liveExchange = (subscribe) => ({ forward }) => (operations) => {
  const all = pipe(operations, share);
  const answers = (operation) =>
    make(({ next, complete }) => {
      const failed = (error) =>
        Array.isArray(error) ? makeResult(operation, { errors: error }) : makeErrorResult(operation, error);
      return subscribe(operation, {
        // Another one may follow: an equal query hears this one, in place of a stream of its own.
        next: (answer) => next(makeResult(operation, { ...answer, hasNext: true })),
        error: (error) => (next(failed(error)), complete()),
        complete,
      });
    });
  const untilLeft = (operation) => takeUntil(pipe(all, filter(({ key }) => key === operation.key)));
  const live = pipe(all, filter(isLive), mergeMap((operation) => pipe(answers(operation), untilLeft(operation))));
  return merge([live, pipe(all, filter((operation) => !isLive(operation)), forward)]);
};
