// What is sent for an operation, and what of its answer is shown: with the switch on, answers are asked to say how they were
// made, which has a panel of its own. An operation with a list of sets of variables is answered by a list. Pure.

export function payload(request, explains) {
  return explains ? { ...request, extensions: { explain: true } } : request;
}

/** An answer without what is shown in a panel of its own. */
export function split(answer, explains) {
  const explain = answer?.extensions?.explain;
  if (!explain || !explains) return { shown: answer, explain };
  const { explain: _, ...extensions } = answer.extensions;
  const shown = { ...answer, extensions };
  if (!Object.keys(extensions).length) delete shown.extensions;
  return { shown, explain };
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
