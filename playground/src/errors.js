// Errors that a person reads on the page: those of ours with a sentence, and how any of them is handed to GraphiQL. Who throws
// them and what follows from them is elsewhere.

/** No answer came at all. */
export class NotReached extends Error {
  constructor() {
    super("The server is not reached.");
  }
}

/** GraphiQL shows the stack of an error too, which says nothing to a reader of the answer. */
export function toShow(error) {
  if (error instanceof Error) delete error.stack;
  return error;
}
