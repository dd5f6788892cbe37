/** Everything that the pages ask the service, with the names under which answers are kept. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import {
  type Annotation,
  type AnnotationBody,
  api,
  type Draft,
  type FeedbackBody,
  Refused,
  type Session,
  type Study,
  take,
  type TokenBody,
  type UserBody,
  type UserChange,
  keepToken,
} from "./client";

export interface Asked {
  q: string;
  status: "" | "open" | "read" | "failed";
  modality: string;
  body_part: string;
  decision: "" | "positive" | "negative" | "withheld";
  days: number;
  order: "urgency" | "newest";
}

export const sessionQuery = {
  queryKey: ["session"],
  queryFn: async (): Promise<Session | null> => {
    try {
      const session = await take(api.GET("/api/v1/session"));
      keepToken(session.csrf);
      return session;
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return null;
      throw error;
    }
  },
  staleTime: Number.POSITIVE_INFINITY,
};

export function useSession() {
  return useQuery(sessionQuery);
}

export function useLogIn() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (given: { name: string; password: string } | { token: string }) =>
      take<Session>(
        "token" in given
          ? api.POST("/api/v1/session/one-time", { body: given })
          : api.POST("/api/v1/session", { body: given }),
      ),
    onSuccess: (session) => {
      keepToken(session.csrf);
      client.setQueryData(["session"], session);
    },
  });
}

export function useLogOut() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.DELETE("/api/v1/session")),
    onSettled: () => {
      client.setQueryData(["session"], null);
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== "session" }); // nothing of a patient stays
    },
  });
}

export function useWorklist(asked: Asked, pages: number) {
  return useQuery({
    queryKey: ["worklist", asked, pages],
    placeholderData: keepPreviousData,
    queryFn: async () => {
      const studies: Study[] = [];
      let cursor = "";
      let total = 0;
      for (let page = 0; page < pages; page++) {
        const got = await take(
          api.GET("/api/v1/studies", { params: { query: { ...asked, cursor, limit: 100 } } }),
        );
        studies.push(...got.studies);
        total = got.total;
        cursor = got.next ?? "";
        if (!cursor) break;
      }
      return { studies, total, more: cursor !== "" };
    },
  });
}

export const studyQuery = (id: string) => ({
  queryKey: ["study", id],
  queryFn: () => take(api.GET("/api/v1/studies/{study_id}", { params: { path: { study_id: id } } })),
  staleTime: Number.POSITIVE_INFINITY, // opening a study is a line of the audit log: asked again only on a change
});

export function useStudy(id: string) {
  return useQuery({ ...studyQuery(id), enabled: id !== "" });
}

export function usePriors(id: string) {
  return useQuery({
    queryKey: ["priors", id],
    queryFn: () => take(api.GET("/api/v1/studies/{study_id}/priors", { params: { path: { study_id: id } } })),
  });
}

export function useReaders() {
  return useQuery({
    queryKey: ["readers"],
    queryFn: () => take(api.GET("/api/v1/readers")),
    staleTime: 60_000,
  });
}

export function useReader(name: string) {
  return useQuery({
    queryKey: ["reader", name],
    queryFn: () => take(api.GET("/api/v1/readers/{name}", { params: { path: { name } } })),
    staleTime: 60_000,
    enabled: name !== "",
    retry: false,
  });
}

export function useFeedbackOn(result: string) {
  return useQuery({
    queryKey: ["feedback-on", result],
    queryFn: () =>
      take(api.GET("/api/v1/results/{result_id}/feedback", { params: { path: { result_id: result } } })),
  });
}

export function useGiveFeedback(result: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ label, body }: { label: string; body: FeedbackBody }) =>
      take(
        api.PUT("/api/v1/results/{result_id}/feedback/{label}", {
          params: { path: { result_id: result, label } },
          body,
        }),
      ),
    onSuccess: () => client.invalidateQueries({ queryKey: ["feedback-on", result] }),
  });
}

export function useFeedbackEntries() {
  return useQuery({
    queryKey: ["feedback-entries"],
    queryFn: () => take(api.GET("/api/v1/feedback/entries", { params: { query: { limit: 2000 } } })),
  });
}

export function useAuditLog(pages: number) {
  return useQuery({
    queryKey: ["audit-log", pages],
    placeholderData: keepPreviousData,
    queryFn: () =>
      take(api.GET("/api/v1/audit-log", { params: { query: { limit: Math.min(500, 100 * pages) } } })),
  });
}

export function useAuditCheck(wanted: boolean) {
  return useQuery({
    queryKey: ["audit-check"],
    queryFn: () => take(api.GET("/api/v1/audit-log/check")) as Promise<Record<string, unknown>>,
    enabled: wanted,
  });
}

export type Want =
  | { kind: "read"; operatingPoint?: string; reader?: string }
  | { kind: "frame"; frame: number }
  | { kind: "explain"; label: string; method?: string; reader?: string }
  | { kind: "masks" }
  | { kind: "similar" };

export function useAsk(image: string, onAsked: () => void) {
  return useMutation({
    mutationFn: (want: Want) => {
      const params = { path: { image_id: image } };
      const reader = "reader" in want ? (want.reader ?? "") : "";
      switch (want.kind) {
        case "read": {
          const body = { reader, operating_point: want.operatingPoint ?? null };
          return take(api.POST("/api/v1/images/{image_id}/reads", { params, body }));
        }
        case "frame": {
          const path = { image_id: image, frame: want.frame };
          const body = { reader: "", operating_point: null };
          return take(api.POST("/api/v1/images/{image_id}/frames/{frame}/reads", { params: { path }, body }));
        }
        case "explain": {
          const body = { reader, label: want.label, method: want.method ?? "gradcam" };
          return take(api.POST("/api/v1/images/{image_id}/explanations", { params, body }));
        }
        case "masks":
          return take(api.POST("/api/v1/images/{image_id}/masks", { params, body: { segmenter: "" } }));
        case "similar":
          return take(api.POST("/api/v1/images/{image_id}/similar", { params, body: { reader: "", k: 6 } }));
      }
    },
    onSuccess: onAsked,
  });
}

export function useAnnotations(image: string) {
  return useQuery({
    queryKey: ["annotations", image],
    // openapi-fetch forgets that a point has two coordinates
    queryFn: () =>
      take(
        api.GET("/api/v1/images/{image_id}/annotations", { params: { path: { image_id: image } } }),
      ) as Promise<Annotation[]>,
    enabled: image !== "",
  });
}

export function useAnnotate(image: string) {
  const client = useQueryClient();
  const done = () => client.invalidateQueries({ queryKey: ["annotations", image] });
  const add = useMutation({
    // One after the other: two lines drawn quickly are listed as they were drawn.
    scope: { id: `annotations ${image}` },
    mutationFn: (body: AnnotationBody) =>
      take(
        api.POST("/api/v1/images/{image_id}/annotations", { params: { path: { image_id: image } }, body }),
      ),
    onSuccess: done,
  });
  const remove = useMutation({
    mutationFn: (id: string) =>
      take(api.DELETE("/api/v1/annotations/{annotation_id}", { params: { path: { annotation_id: id } } })),
    onSuccess: done,
  });
  return { add, remove };
}

export function useDraft(study: string, wanted: boolean) {
  return useQuery({
    queryKey: ["draft", study],
    queryFn: () =>
      take(api.GET("/api/v1/studies/{study_id}/draft", { params: { path: { study_id: study } } })),
    enabled: wanted,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export function useDraftChange(study: string) {
  const client = useQueryClient();
  const params = { path: { study_id: study } };
  return useMutation({
    mutationFn: (
      change: { do: "save" | "sign"; text: string; revision: number } | { do: "renew" },
    ): Promise<Draft> => {
      if (change.do === "renew") return take(api.POST("/api/v1/studies/{study_id}/draft/renew", { params }));
      const body = { text: change.text, revision: change.revision };
      return change.do === "sign"
        ? take(api.POST("/api/v1/studies/{study_id}/draft/sign", { params, body }))
        : take(api.PUT("/api/v1/studies/{study_id}/draft", { params, body }));
    },
    onSuccess: (draft) => client.setQueryData(["draft", study], draft),
  });
}

export function useQuestion(study: string) {
  return useMutation({
    mutationFn: (question: string) =>
      take(
        api.POST("/api/v1/studies/{study_id}/ask", {
          params: { path: { study_id: study } },
          body: { question },
        }),
      ),
  });
}

export function useLoadPhantoms() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.POST("/api/v1/phantoms")),
    onSuccess: () => client.invalidateQueries({ queryKey: ["worklist"] }),
  });
}

export function useLogInWays() {
  return useQuery({
    queryKey: ["log-in-ways"],
    queryFn: () => take(api.GET("/api/v1/session/ways")),
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export type JobState = "" | "queued" | "running" | "done" | "failed" | "cancelled" | "dead";

export function useJobs(state: JobState) {
  return useQuery({
    queryKey: ["jobs", state],
    placeholderData: keepPreviousData,
    refetchInterval: 2000,
    queryFn: () => take(api.GET("/api/v1/jobs", { params: { query: { state, limit: 200 } } })),
  });
}

export function useJobChange() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ id, change }: { id: string; change: "retry" | "cancel" }) => {
      const params = { path: { job_id: id } };
      return take(
        change === "retry"
          ? api.POST("/api/v1/jobs/{job_id}/retry", { params })
          : api.POST("/api/v1/jobs/{job_id}/cancel", { params }),
      );
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["jobs"] }),
  });
}

export function useUsers() {
  return useQuery({ queryKey: ["users"], queryFn: () => take(api.GET("/api/v1/users")) });
}

export function useAddUser() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: UserBody) => take(api.POST("/api/v1/users", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["users"] }),
  });
}

export function useChangeUser() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ id, body }: { id: string; body: UserChange }) =>
      take(api.PATCH("/api/v1/users/{user_id}", { params: { path: { user_id: id } }, body })),
    onSettled: () => client.invalidateQueries({ queryKey: ["users"] }),
  });
}

export function useOneTime() {
  return useMutation({
    mutationFn: (id: string) =>
      take(api.POST("/api/v1/users/{user_id}/one-time", { params: { path: { user_id: id } } })),
  });
}

export function useTokens() {
  return useQuery({ queryKey: ["tokens"], queryFn: () => take(api.GET("/api/v1/tokens")) });
}

export function useMakeToken() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: TokenBody) => take(api.POST("/api/v1/tokens", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["tokens"] }),
  });
}

export function useRevokeToken() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) =>
      take(api.DELETE("/api/v1/tokens/{token_id}", { params: { path: { token_id: id } } })),
    onSettled: () => client.invalidateQueries({ queryKey: ["tokens"] }),
  });
}

export const pictureAddress = (result: string, name: string): string =>
  `/api/v1/results/${result}/pictures/${encodeURIComponent(name)}`;
