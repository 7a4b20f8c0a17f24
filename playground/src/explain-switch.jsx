// The switch beside the run button: whether answers are asked to say how they were made.
import { Tooltip } from "@graphiql/react";
import { useSyncExternalStore } from "react";
import * as settings from "./settings.js";

export function ExplainSwitch() {
  const isOn = useSyncExternalStore(settings.subscribe, settings.explains);
  return (
    <Tooltip label="Show how the server makes an answer">
      <button
        type="button"
        role="switch"
        aria-checked={isOn}
        className="xp-plain xp-explain-switch"
        onClick={() => settings.write("explain", isOn ? "off" : "on")}
      >
        <svg width="18" height="14" viewBox="0 0 18 14" aria-hidden="true" fill="currentColor">
          <rect x="0" y="0" width="8" height="3" rx="1" />
          <rect x="4" y="5.5" width="10" height="3" rx="1" />
          <rect x="10" y="11" width="8" height="3" rx="1" />
        </svg>
        Explain
      </button>
    </Tooltip>
  );
}
