/** What a person chose for this browser: language, hidden names, panel of a study. Nothing of a patient is kept. */
import { useSyncExternalStore } from "react";

export interface Preferences {
  language: "en" | "es";
  hideNames: boolean;
}

const KEY = "wetread.preferences";
const listeners = new Set<() => void>();

function initial(): Preferences {
  const language = navigator.language.toLowerCase().startsWith("es") ? "es" : "en";
  try {
    return { language, hideNames: false, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { language, hideNames: false };
  }
}

let current = initial();

export function setPreferences(change: Partial<Preferences>): void {
  current = { ...current, ...change };
  localStorage.setItem(KEY, JSON.stringify(current));
  document.documentElement.lang = current.language;
  for (const listener of listeners) listener();
}

export function usePreferences(): Preferences {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => current,
  );
}

export function preferences(): Preferences {
  return current;
}
