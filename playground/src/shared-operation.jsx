// The operation of a link: opened once, when the editors are there, and never run by itself. It draws nothing.
import { useEffect, useRef } from "react";
import { readLink } from "./export.js";
import { useEditorsReady, useOpenOperation } from "./open-operation.js";

export function SharedOperation() {
  const open = useOpenOperation();
  const isReady = useEditorsReady();
  const isDone = useRef(false);
  useEffect(() => {
    if (!isReady || isDone.current) return;
    isDone.current = true;
    const shared = readLink(window.location.hash);
    if (!shared) return;
    window.history.replaceState(null, "", window.location.pathname);
    open(shared);
  }, [isReady]);
  return null;
}
