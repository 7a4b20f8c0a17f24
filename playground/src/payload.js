// What is sent for an operation, and what of its answer is shown: with the switch on, answers are asked to say how they were
// made, which has a panel of its own. Pure.

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
