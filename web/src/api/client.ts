/** The typed client. Decided here: one error class for all that can go wrong, with words for people in it. */
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Session = Schemas["SessionOut"];
export type Study = Schemas["StudyOut"];
export type StudyDetail = Schemas["StudyDetail"];
export type StudyImage = Schemas["ImageOut"];
export type Result = Schemas["ResultOut"];
export type Job = Schemas["JobOut"];
export type Draft = Schemas["DraftOut"];
export type Fact = Schemas["FactOut"];
export type Phrase = Schemas["PhraseOut"];
export type Answer = Schemas["AnswerOut"];
export type ReaderInfo = Schemas["ReaderOut"];
export type Feedback = Schemas["FeedbackOut"];
export type FeedbackEntry = Schemas["FeedbackEntry"];
export type FeedbackBody = Schemas["FeedbackBody"];
export type Annotation = Schemas["AnnotationOut"];
export type AnnotationBody = Schemas["AnnotationBody"];
export type Upload = Schemas["UploadOut"];
export type JobLine = Schemas["JobLine"];
export type User = Schemas["UserOut"];
export type UserBody = Schemas["UserBody"];
export type UserChange = Schemas["UserChange"];
export type Token = Schemas["TokenOut"];
export type TokenBody = Schemas["TokenBody"];
export type TokenMade = Schemas["TokenMade"];
export type AuditLine = Schemas["AuditLine"];

/** An answer that is not the expected one. `code` is for programs, `message` and `hint` are for people. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint: string,
    readonly status: number,
  ) {
    super(message);
  }
}

let csrf = "";

/** The token that every changing request must carry; given with the session. */
export function keepToken(token: string | null | undefined): void {
  csrf = token ?? "";
}

export function currentToken(): string {
  return csrf;
}

const carryToken: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET" && csrf) request.headers.set("X-CSRF-Token", csrf);
    return request;
  },
};

export const api = createClient<paths>({ baseUrl: "/" });
api.use(carryToken);

interface Answered<T> {
  data?: T | undefined;
  error?: unknown;
  response: Response;
}

/** The body of an answer, or `Refused`. */
export async function take<T>(asked: Promise<Answered<T>>): Promise<T> {
  let got: Answered<T>;
  try {
    got = await asked;
  } catch {
    throw new Refused("unreachable", "The service does not answer.", "", 0);
  }
  if (got.response.ok) return got.data as T;
  throw refusal(got.error, got.response.status);
}

/** Read the one shape that errors of the service have. */
export function refusal(body: unknown, status: number): Refused {
  const told = (body as { error?: { code?: string; message?: string; hint?: string } } | undefined)?.error;
  return new Refused(told?.code ?? "unexpected", told?.message ?? `HTTP ${status}`, told?.hint ?? "", status);
}
