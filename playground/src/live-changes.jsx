// What an answer of a live query has changed, in the answer itself: its lines are marked for a moment, and those who do not see
// them are told how many values it is. What has changed is changes.js's.
import { useGraphiQL } from "@graphiql/react";
import { useEffect, useState } from "react";
import { inWords } from "./changes.js";

/** As long as the marks take to fade (live.css). */
const SHOWN_MS = 2_000;

export function LiveChanges({ run }) {
  const editor = useGraphiQL((state) => state.responseEditor);
  const [told, setTold] = useState("");
  const answer = run?.isLive ? run.events.at(-1) : undefined;
  useEffect(() => {
    if (!editor || !answer?.changes) return undefined;
    const marks = editor.createDecorationsCollection();
    const show = () => {
      // The answer comes into the editor a moment later than here.
      if (editor.getValue() === answer.text) marks.set(answer.changes.lines.map((line) => markOf(editor.getModel(), line)));
    };
    const watching = editor.onDidChangeModelContent(show);
    show();
    setTold(inWords(answer.changes));
    const clear = () => {
      watching.dispose();
      marks.clear();
    };
    const timer = setTimeout(() => {
      clear();
      setTold("");
    }, SHOWN_MS);
    return () => {
      clearTimeout(timer);
      clear();
    };
  }, [editor, answer]);
  return (
    <p role="status" className="xp-unseen">
      {told}
    </p>
  );
}

/** A line without its indentation. */
function markOf(model, line) {
  return {
    range: {
      startLineNumber: line,
      startColumn: model.getLineFirstNonWhitespaceColumn(line),
      endLineNumber: line,
      endColumn: model.getLineMaxColumn(line),
    },
    options: { className: "xp-changed" },
  };
}
