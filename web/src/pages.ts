/** The parts that are fetched apart, and which of them to have at hand. */
import { late } from "./ui/late";

export const Study = late(() => import("./study/study"));
export const Viewer = late(() => import("./viewer/reading"));
export const Readers = late(() => import("./readers/readers"));
export const FeedbackPage = late(() => import("./feedback/feedback"));
export const Jobs = late(() => import("./jobs/jobs"));
export const Users = late(() => import("./users/users"));
export const Tokens = late(() => import("./tokens/tokens"));
export const AuditLog = late(() => import("./log/log"));

/** Fetch the page of a study; the viewer comes when the first picture is on the screen, because it takes long. */
export function fetchStudyPage(): void {
  Study.preload().catch(() => undefined);
}

/** Fetch it and start the drawing when there is nothing else to do: a study that is opened then is shown at once. */
export function prepareStudyParts(): () => void {
  const wait = window.requestIdleCallback ?? ((what: () => void) => setTimeout(what, 500));
  const cancel = window.cancelIdleCallback ?? clearTimeout;
  const handle = wait(() => {
    fetchStudyPage();
    Viewer.preload().catch(() => undefined);
    import("./viewer/engine").then((engine) => engine.warmUp()).catch(() => undefined);
  });
  return () => cancel(handle);
}
