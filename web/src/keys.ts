/** Keys of a page: not while somebody types, and not while a dialogue is open. */
import { useEffect, useRef } from "react";

export type KeyMap = Record<string, (event: KeyboardEvent) => void>;

export function useKeys(map: KeyMap, enabled = true): void {
  const latest = useRef(map);
  latest.current = map;
  useEffect(() => {
    if (!enabled) return;
    const listen = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
      if (document.querySelector("dialog[open]")) return;
      const action = latest.current[event.key];
      if (!action || (event.key === " " && isPressable(event.target))) return;
      event.preventDefault();
      action(event);
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, [enabled]);
}

/** Whether the key is for what has the focus: text for a field, arrows for a slider. */
function isTaken({ target, key }: KeyboardEvent): boolean {
  const field = (target as HTMLElement | null)?.closest?.("input, textarea, select, [contenteditable]");
  const isSlider = field instanceof HTMLInputElement && field.type === "range";
  return field != null && !(isSlider && key.length === 1);
}

/** The space bar presses what has the focus. */
function isPressable(target: EventTarget | null): boolean {
  return (target as HTMLElement | null)?.closest?.("button, a, summary") != null;
}
