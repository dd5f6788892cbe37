/** What the reader found in the image that is shown, how far it may be trusted, and what else can be asked. */
import { Check, Crosshair, Pencil, X } from "lucide-react";
import { type FormEvent, useState } from "react";
import type { Feedback, FeedbackBody, Result, Session } from "../api/client";
import { useAsk, useFeedbackOn, useGiveFeedback, useReader } from "../api/queries";
import type { CardRecord, LabelReading, ReadRecord } from "../api/records";
import { fixed, percent, useWords } from "../i18n";
import { Badge, Button, Decision, Problem, Section, Spinner } from "../ui/parts";
import { Measurements } from "./measurements";
import { Similar } from "./similar";
import { heatOf, latest, readOf, type Stage } from "./stage";
import { Trust } from "./trust";

interface Props {
  stage: Stage;
  session: Session;
  onAsked: () => void;
}

export function Findings(props: Props) {
  const { stage, session, onAsked } = props;
  const { place } = stage;
  if (!place) return null;
  if (place.readable) return <OfPicture key={place.image.id} {...props} />;
  return (
    <>
      <OtherFrames stage={stage} onAsked={onAsked} />
      <Measurements stage={stage} session={session} onAsked={onAsked} />
    </>
  );
}

/** What stands where a frame was not read: which ones were, and the way to have this one read, too. */
function OtherFrames({ stage, onAsked }: { stage: Stage; onAsked: () => void }) {
  const words = useWords();
  const { place, places } = stage;
  const ask = useAsk(place?.file.id ?? "", onAsked);
  if (!place) return null;
  const read = places.flatMap((one, at) => (one.file === place.file && one.readable ? [{ at, ...one }] : []));
  return (
    <Section title={words("findings")}>
      <p>{words("frameNotRead", { n: place.frame, of: place.file.frames })}</p>
      <div className="row">
        <span className="dim small">{words("framesRead")}</span>
        {read.map(({ at, frame }) => (
          <button key={frame} type="button" className="fact num" onClick={() => stage.setIndex(at)}>
            {frame}
          </button>
        ))}
      </div>
      <div className="row">
        <Button disabled={ask.isPending} onClick={() => ask.mutate({ kind: "frame", frame: place.frame })}>
          {words("readFrame")}
        </Button>
      </div>
      {ask.isError && <Problem error={ask.error} />}
    </Section>
  );
}

function OfPicture({ stage, session, onAsked }: Props) {
  const words = useWords();
  const { image, study, place } = stage;
  const read = latest(image, "read");
  const jobs = study.jobs.filter((one) => one.image_id === image?.id);
  const waiting = jobs.filter((one) => one.state === "queued" || one.state === "running");
  const failed = jobs.filter((one) => one.state === "failed" || one.state === "dead");
  return (
    <>
      {waiting.length > 0 && (
        <div className="notice" data-testid="waiting">
          <Spinner
            label={words(waiting.some((one) => one.kind === "read") ? "readingImage" : "workingOnIt")}
          />
        </div>
      )}
      {failed.map((job) => (
        <div key={job.id} className="notice fail" role="alert">
          <strong>{words("jobFailed", { kind: job.kind })}</strong> {job.message}
        </div>
      ))}
      {place && place.file.frames > 1 && (
        <p className="of-frame small dim">
          {words("findingsOfFrame", { n: place.frame, of: place.file.frames })}
        </p>
      )}
      {read && <Reading key={read.id} read={read} stage={stage} session={session} onAsked={onAsked} />}
      {!read && waiting.length === 0 && failed.length === 0 && (
        <p className="dim padded">{words("notReadYet")}</p>
      )}
      {read && <Trust read={readOf(read)} />}
      <Similar stage={stage} onAsked={onAsked} />
      <Measurements stage={stage} session={session} onAsked={onAsked} />
    </>
  );
}

function Reading({ read, stage, session, onAsked }: Props & { read: Result }) {
  const words = useWords();
  const record = readOf(read);
  if (!record.gate.passed) {
    return (
      <Section title={words("findings")} aside={<Decision decision="withheld" />}>
        <p>{words("gateRefused")}</p>
        <ul className="reasons">
          {record.gate.reasons.map((reason) => (
            <li key={reason}>{reason}</li>
          ))}
        </ul>
        <p className="dim small">{words("gateHint")}</p>
      </Section>
    );
  }
  return (
    <Section title={words("findings")} aside={<ReadAgain read={read} stage={stage} onAsked={onAsked} />}>
      {record.labels.map((reading) => (
        <Finding
          key={reading.label}
          reading={reading}
          read={read}
          stage={stage}
          session={session}
          onAsked={onAsked}
        />
      ))}
      <AnswerSet record={record} />
      {record.agreement && <p className="small">{record.agreement.sentence}</p>}
      {record.warnings.map((warning) => (
        <p key={warning} className="dim small">
          {warning}
        </p>
      ))}
    </Section>
  );
}

function Finding(props: Props & { reading: LabelReading; read: Result }) {
  const { reading, read, stage, session, onAsked } = props;
  const words = useWords();
  const point = reading.operating_point;
  return (
    <article className="finding" aria-label={reading.label}>
      <header>
        <h3>{reading.label}</h3>
        <Decision decision={reading.decision} />
        {reading.probability !== null && (
          <span className="probability num" title={words("probabilityHint")}>
            {fixed(reading.probability, 3, words.language)}
          </span>
        )}
      </header>
      {reading.probability !== null && (
        <Gauge
          probability={reading.probability}
          threshold={point?.threshold ?? null}
          decision={reading.decision}
        />
      )}
      {point && (
        <p className="dim small num">
          {words("operatingPoint", {
            name: point.name,
            threshold: fixed(point.threshold, 3, words.language),
            sensitivity: percent(point.sensitivity.value ?? 0, words.language),
            specificity: percent(point.specificity.value ?? 0, words.language),
          })}
        </p>
      )}
      {reading.reason && <p className="small">{reading.reason}</p>}
      <Where reading={reading} read={read} stage={stage} onAsked={onAsked} />
      {session.role !== "reader" && <Say result={read.id} reading={reading} />}
    </article>
  );
}

function Gauge(props: { probability: number; threshold: number | null; decision: string }) {
  const words = useWords();
  const { probability, threshold, decision } = props;
  const label = words("gaugeLabel", {
    p: fixed(probability, 3, words.language),
    t: threshold === null ? "–" : fixed(threshold, 3, words.language),
  });
  return (
    <svg
      className={`gauge ${decision}`}
      viewBox="0 0 200 10"
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <rect className="gauge-track" x="0" y="3" width="200" height="4" rx="2" />
      <rect className="gauge-fill" x="0" y="3" width={Math.max(2, 200 * probability)} height="4" rx="2" />
      {threshold !== null && (
        <rect className="gauge-mark" x={Math.min(198.5, 200 * threshold)} y="0" width="1.5" height="10" />
      )}
    </svg>
  );
}

function Where({
  reading,
  read,
  stage,
  onAsked,
}: Omit<Props, "session"> & { reading: LabelReading; read: Result }) {
  const words = useWords();
  const ask = useAsk(stage.image?.id ?? "", onAsked);
  const heat = heatOf(stage.image, read, reading);
  const evidence = reading.evidence;
  if (heat === null) {
    return (
      <div className="where">
        <span className="dim small">
          {evidence ? words("noHeatMap", { why: evidence.status }) : words("heatMapNotMade")}
        </span>
        <Button
          kind="quiet"
          disabled={ask.isPending}
          onClick={() => ask.mutate({ kind: "explain", label: reading.label, reader: read.reader })}
        >
          {words("makeHeatMap")}
        </Button>
        {ask.isError && <Problem error={ask.error} />}
      </div>
    );
  }
  const on = stage.heat?.result === heat.result && stage.heat.label === heat.label;
  const boxes = evidence?.boxes ?? [];
  return (
    <div className="where">
      <Button
        kind="quiet"
        aria-pressed={on}
        onClick={() => (on ? stage.setHeat(null) : stage.showEvidence(heat.result, heat.label))}
      >
        <Crosshair size={14} aria-hidden="true" /> {words(on ? "hideHeatMap" : "showHeatMap")}
      </Button>
      {boxes.map((box, number) => (
        <button
          key={`${box.x} ${box.y}`}
          type="button"
          className="fact num"
          aria-label={words("place", { n: number + 1 })}
          title={words("placeHint", { n: number + 1 })}
          aria-pressed={on && stage.marked === number}
          onClick={() => stage.showEvidence(heat.result, heat.label, number)}
        >
          {number + 1}
        </button>
      ))}
    </div>
  );
}

function AnswerSet({ record }: { record: ReadRecord }) {
  const words = useWords();
  const chosen = record.prediction_set;
  if (chosen === null) return null;
  const rate = percent(chosen.alpha, words.language);
  if (chosen.abstains) {
    return (
      <p className="answer-set small">
        <Badge tone="withheld">{words("abstains")}</Badge> {chosen.reason}
      </p>
    );
  }
  return (
    <p className="answer-set small">
      <span className="dim">{words("answerSet", { rate })}</span>
      <span className="set num">{`{ ${chosen.classes.join(", ")} }`}</span>
    </p>
  );
}

function ReadAgain({ read, stage, onAsked }: { read: Result; stage: Stage; onAsked: () => void }) {
  const words = useWords();
  const ask = useAsk(stage.image?.id ?? "", onAsked);
  const card = useReader(read.reader).data?.card as unknown as CardRecord | undefined;
  const points = [...new Set(card?.operating_points?.map((one) => one.name) ?? [])];
  if (points.length < 2) return null;
  const used = readOf(read).labels[0]?.operating_point?.name ?? "";
  return (
    <select
      className="small-select"
      aria-label={words("readAt")}
      title={words("readAt")}
      value={used}
      disabled={ask.isPending}
      onChange={(event) =>
        ask.mutate({ kind: "read", reader: read.reader, operatingPoint: event.target.value })
      }
    >
      {points.map((one) => (
        <option key={one}>{one}</option>
      ))}
    </select>
  );
}

function Say({ result, reading }: { result: string; reading: LabelReading }) {
  const words = useWords();
  const said = useFeedbackOn(result);
  const give = useGiveFeedback(result);
  const [action, setAction] = useState<"edit" | "reject" | null>(null);
  const mine = (said.data ?? []).filter((one) => one.label === reading.label);
  const send = (body: FeedbackBody) =>
    give.mutate({ label: reading.label, body }, { onSuccess: () => setAction(null) });
  return (
    <div className="say">
      <fieldset>
        <legend className="hidden">{words("yourWord")}</legend>
        <Button
          kind="quiet"
          onClick={() => send({ action: "accept", corrected: null, reason: "" })}
          disabled={give.isPending}
        >
          <Check size={14} aria-hidden="true" /> {words("accept")}
        </Button>
        <Button
          kind="quiet"
          aria-expanded={action === "edit"}
          onClick={() => setAction(action === "edit" ? null : "edit")}
        >
          <Pencil size={14} aria-hidden="true" /> {words("edit")}
        </Button>
        <Button
          kind="quiet"
          aria-expanded={action === "reject"}
          onClick={() => setAction(action === "reject" ? null : "reject")}
        >
          <X size={14} aria-hidden="true" /> {words("reject")}
        </Button>
      </fieldset>
      {action !== null && (
        <Why action={action} decision={reading.decision} busy={give.isPending} onSend={send} />
      )}
      {give.isError && <Problem error={give.error} />}
      {mine.map((one) => (
        <Said key={one.id} feedback={one} />
      ))}
    </div>
  );
}

function Why(props: {
  action: "edit" | "reject";
  decision: string;
  busy: boolean;
  onSend: (body: FeedbackBody) => void;
}) {
  const words = useWords();
  const other = props.decision === "positive" ? "negative" : "positive";
  const [corrected, setCorrected] = useState<"positive" | "negative">(other);
  const [reason, setReason] = useState("");
  const send = (event: FormEvent) => {
    event.preventDefault();
    props.onSend({ action: props.action, corrected: props.action === "edit" ? corrected : null, reason });
  };
  return (
    <form className="why" onSubmit={send}>
      {props.action === "edit" && (
        <label>
          {words("rightAnswer")}
          <select value={corrected} onChange={(e) => setCorrected(e.target.value as "positive" | "negative")}>
            <option value="positive">{words("positive")}</option>
            <option value="negative">{words("negative")}</option>
          </select>
        </label>
      )}
      <label>
        {words("reason")}
        <input required maxLength={2000} value={reason} onChange={(e) => setReason(e.target.value)} />
      </label>
      <Button kind="main" type="submit" disabled={props.busy}>
        {words("store")}
      </Button>
    </form>
  );
}

function Said({ feedback }: { feedback: Feedback }) {
  const words = useWords();
  const what =
    { accept: words("accepted"), edit: words("edited"), reject: words("rejected") }[feedback.action] ?? "";
  const corrected = feedback.corrected
    ? ` → ${words(feedback.corrected === "positive" ? "positive" : "negative")}`
    : "";
  return (
    <p className="said small" data-testid="said">
      <strong>
        {what}
        {corrected}
      </strong>{" "}
      <span className="dim">{feedback.by}</span>
      {feedback.reason && <span>: {feedback.reason}</span>}
    </p>
  );
}
