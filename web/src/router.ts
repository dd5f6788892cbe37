/** Addresses after the hash: `#/`, `#/study/ID`, `#/jobs` and so on. They never reach the server. */
import { useSyncExternalStore } from "react";

export interface Place {
  page: string;
  id: string;
  beside: string;
}

function parse(hash: string): Place {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", id = ""] = path.split("/");
  return { page: page || "worklist", id, beside: new URLSearchParams(query).get("beside") ?? "" };
}

let seen = location.hash;
let place = parse(seen);

function now(): Place {
  if (location.hash !== seen) {
    seen = location.hash;
    place = parse(seen);
  }
  return place;
}

export function usePlace(): Place {
  return useSyncExternalStore((listener) => {
    addEventListener("hashchange", listener);
    return () => removeEventListener("hashchange", listener);
  }, now);
}

export function go(path: string): void {
  location.hash = `/${path}`;
}

export const studyPath = (id: string, beside = ""): string =>
  `study/${id}${beside ? `?beside=${beside}` : ""}`;
