// The operation of a link: opened when the editors are there, and never run by itself; another one when a link is followed on this
// page. It draws nothing.
import { useEffect } from "react";
import { readLink } from "./export.js";
import { useEditorsReady, useOpenOperation } from "./open-operation.js";

export function SharedOperation() {
  const open = useOpenOperation();
  const isReady = useEditorsReady();
  useEffect(() => {
    if (!isReady) return undefined;
    const openShared = () => {
      const shared = readLink(window.location.hash);
      if (!shared) return;
      window.history.replaceState(null, "", window.location.pathname);
      open(shared);
    };
    openShared();
    window.addEventListener("hashchange", openShared);
    return () => window.removeEventListener("hashchange", openShared);
  }, [isReady]);
  return null;
}
