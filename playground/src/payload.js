// What is sent for an operation, and what of its answer is shown: with the switch on, answers are asked to say how they were
// made, which has a panel of its own. An operation with a list of sets of variables is answered by a list. Pure.

export function payload(request, explains) {
  return explains ? { ...request, extensions: { explain: true } } : request;
}

/** An answer without what is shown by itself: how it was made, and what stands for an event when its reader comes back. */
export function split(answer, explains) {
  const { explain, resumeToken, ...rest } = answer?.extensions ?? {};
  if (!(explain && explains) && !resumeToken) return { shown: answer, explain };
  const extensions = explain && !explains ? { ...rest, explain } : rest;
  const shown = { ...answer, extensions };
  if (!Object.keys(extensions).length) delete shown.extensions;
  return { shown, explain, resumeToken };
}

/**
 * The answers to the sets of variables, without what is shown in a panel of its own: the sets of a query are one execution, told
 * in the last answer, those of a mutation each tell their own.
 *
 * @param {object[]} answers
 * @returns {{shown: object[], explains: {index: number, explain: object}[]}}
 */
export function splitAll(answers, explains) {
  const parts = answers.map((answer) => split(answer, explains));
  return {
    shown: parts.map(({ shown }) => shown),
    explains: parts.flatMap(({ explain }, place) =>
      explain ? [{ index: answers[place].variableIndex ?? place, explain }] : [],
    ),
  };
}
