/**
 * Parts of the pages that are fetched when they are needed, or before. Not `lazy` and `Suspense`: React holds back what
 * comes within 300 ms of a spinner, which is a fifth of the time that opening a study may take.
 */
import { type ComponentType, createElement, type ReactNode, useEffect, useState } from "react";
import { useWords } from "../i18n";
import { Spinner } from "./parts";

export interface Late<P> {
  (props: P & { waiting?: ReactNode }): ReactNode;
  /** Fetch it now, so that it is there when it is needed. */
  preload: () => Promise<unknown>;
  /** Whether it is here. */
  ready: () => boolean;
}

export function late<P extends object>(load: () => Promise<{ default: ComponentType<P> }>): Late<P> {
  let found: ComponentType<P> | null = null;
  let under: Promise<unknown> | null = null;
  const preload = () => {
    under ??= load()
      .then((module) => {
        found = module.default;
      })
      .catch((error: unknown) => {
        under = null; // the next one may try again
        throw error;
      });
    return under;
  };
  function Part({ waiting, ...props }: P & { waiting?: ReactNode }) {
    const words = useWords();
    const [, draw] = useState(false);
    const [failed, setFailed] = useState<unknown>(null);
    useEffect(() => {
      if (found === null) preload().then(() => draw(true), setFailed);
    }, []);
    if (failed !== null) throw failed;
    if (found === null) return waiting ?? <Spinner label={words("loading")} />;
    return createElement(found, props as unknown as P);
  }
  return Object.assign(Part, { preload, ready: () => found !== null });
}
