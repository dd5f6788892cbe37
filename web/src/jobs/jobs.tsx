/** What workers are at, what failed and what was given up; kept up to date while it is looked at. */
import { useState } from "react";
import type { JobLine, Session } from "../api/client";
import { type JobState, useJobChange, useJobs } from "../api/queries";
import { age, moment, type TextKey, useWords } from "../i18n";
import { useKeys } from "../keys";
import { studyPath } from "../router";
import { useNow } from "../ui/now";
import { Badge, Button, Empty, Problem, Spinner, type Tone } from "../ui/parts";

const STATES: JobState[] = ["", "queued", "running", "failed", "dead", "cancelled", "done"];
const NAMES: Record<JobState, TextKey> = {
  "": "jobAll",
  queued: "jobQueued",
  running: "jobRunning",
  failed: "jobFailedState",
  dead: "jobDead",
  cancelled: "jobCancelled",
  done: "jobDone",
};
const TONES: Partial<Record<string, Tone>> = {
  queued: "plain",
  running: "accent",
  failed: "fail",
  dead: "fail",
  done: "pass",
};
const KINDS: Record<string, TextKey> = {
  read: "kindRead",
  explain: "kindExplain",
  segment: "kindSegment",
  similar: "kindSimilar",
};

export default function Jobs({ session }: { session: Session }) {
  const words = useWords();
  const [state, setState] = useState<JobState>("");
  const jobs = useJobs(state);
  const move = (by: number) =>
    setState(STATES[(STATES.indexOf(state) + by + STATES.length) % STATES.length] ?? "");
  useKeys({ ArrowRight: () => move(1), ArrowLeft: () => move(-1) });
  if (jobs.isPending) return <Spinner label={words("loading")} />;
  if (jobs.isError) return <Problem error={jobs.error} onRetry={() => jobs.refetch()} />;
  const { counts } = jobs.data;
  const total = Object.values(counts).reduce((sum, one) => sum + one, 0);
  return (
    <div className="page">
      <header className="page-head">
        <h1>{words("jobs")}</h1>
      </header>
      <fieldset className="choices">
        <legend className="hidden">{words("status")}</legend>
        {STATES.map((one) => (
          <button key={one} type="button" aria-pressed={one === state} onClick={() => setState(one)}>
            {words(NAMES[one])} <span className="num dim">{one === "" ? total : (counts[one] ?? 0)}</span>
          </button>
        ))}
      </fieldset>
      {jobs.data.jobs.length === 0 ? (
        <Empty title={words("noJobs")}>
          <p>{words(session.role === "admin" ? "noJobsHintAdmin" : "noJobsHint")}</p>
        </Empty>
      ) : (
        <Table jobs={jobs.data.jobs} admin={session.role === "admin"} />
      )}
    </div>
  );
}

function Table({ jobs, admin }: { jobs: readonly JobLine[]; admin: boolean }) {
  const words = useWords();
  const change = useJobChange();
  const now = useNow(1000);
  return (
    <>
      {change.isError && <Problem error={change.error} />}
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">{words("status")}</th>
            <th scope="col">{words("what")}</th>
            <th scope="col">{words("reader")}</th>
            <th scope="col">{words("study")}</th>
            <th scope="col">{words("askedBy")}</th>
            <th scope="col">{words("askedAt")}</th>
            <th scope="col" className="number">
              {words("tries")}
            </th>
            <th scope="col" className="number">
              {words("took")}
            </th>
            <th scope="col">
              <span className="hidden">{words("actions")}</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {jobs.map((job) => (
            <Line
              key={job.id}
              job={job}
              now={now}
              admin={admin}
              busy={change.isPending}
              onChange={(what) => change.mutate({ id: job.id, change: what })}
            />
          ))}
        </tbody>
      </table>
    </>
  );
}

function Line(props: {
  job: JobLine;
  now: number;
  admin: boolean;
  busy: boolean;
  onChange: (change: "retry" | "cancel") => void;
}) {
  const words = useWords();
  const { job, admin, busy, onChange } = props;
  const open = job.state === "queued" || job.state === "running";
  return (
    <tr data-testid="job" data-state={job.state}>
      <td>
        <Badge tone={TONES[job.state] ?? "plain"}>
          {job.state === "running" && <span className="pulse" aria-hidden="true" />}
          {words(NAMES[job.state as JobState] ?? "jobAll")}
        </Badge>
      </td>
      <td>
        {words(KINDS[job.kind] ?? "what")}
        {job.message && <p className="job-message small">{job.message}</p>}
      </td>
      <td className="dim">{String(job.parameters.reader ?? "")}</td>
      <td>
        <a href={`#/${studyPath(job.study_id)}`}>{words("imageNumber", { n: job.image_number })}</a>
      </td>
      <td className="dim">{job.by}</td>
      <td className="num">{moment(job.created, words.language)}</td>
      <td className="number">{job.attempts}</td>
      <td className="number">{took(job, props.now)}</td>
      <td className="number">
        {open && (
          <Button kind="quiet" disabled={busy} onClick={() => onChange("cancel")}>
            {words("cancel")}
          </Button>
        )}
        {admin && !open && job.state !== "done" && (
          <Button kind="quiet" disabled={busy} onClick={() => onChange("retry")}>
            {words("retry")}
          </Button>
        )}
      </td>
    </tr>
  );
}

function took(job: JobLine, now: number): string {
  if (job.started === null) return "";
  const seconds = Math.max(0, (job.finished ?? now) - job.started);
  return seconds < 10 ? `${seconds.toFixed(1)} s` : age(seconds);
}
