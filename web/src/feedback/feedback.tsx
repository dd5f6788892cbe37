/** What people said to the readers: how often they agreed, week by week, and where they did not. */
import { Download } from "lucide-react";
import type { FeedbackEntry, Session } from "../api/client";
import { useFeedbackEntries } from "../api/queries";
import { fixed, moment, percent, useWords } from "../i18n";
import { studyPath } from "../router";
import { Decision, Empty, Problem, Section, Spinner } from "../ui/parts";
import { type Week, weeksOf } from "./weeks";

export default function FeedbackPage({ session }: { session: Session }) {
  const words = useWords();
  const entries = useFeedbackEntries();
  if (session.role === "reader") return <p className="dim padded">{words("reportNeedsAnnotator")}</p>;
  if (entries.isPending) return <Spinner label={words("loading")} />;
  if (entries.isError) return <Problem error={entries.error} onRetry={() => entries.refetch()} />;
  const readers = [...new Set(entries.data.map((one) => one.reader))].sort();
  return (
    <div className="page">
      <header className="page-head">
        <h1>{words("feedback")}</h1>
        <a className="button plain" href="/api/v1/feedback/manifest" download="feedback.csv">
          <Download size={15} aria-hidden="true" /> {words("exportManifest")}
        </a>
      </header>
      <p className="dim small">{words("manifestHint")}</p>
      {entries.data.length === 0 && <Empty title={words("noFeedback")}>{words("noFeedbackHint")}</Empty>}
      <div className="columns">
        {readers.map((reader) => (
          <Agreement
            key={reader}
            reader={reader}
            entries={entries.data.filter((one) => one.reader === reader)}
          />
        ))}
      </div>
      <Disagreements entries={entries.data.filter((one) => one.action !== "accept")} />
    </div>
  );
}

function Agreement({ reader, entries }: { reader: string; entries: readonly FeedbackEntry[] }) {
  const words = useWords();
  const count = (action: string) => entries.filter((one) => one.action === action).length;
  const agreed = count("accept") / entries.length;
  return (
    <Section title={reader} aside={<span className="dim num">n = {entries.length}</span>}>
      <p className="figure">
        <span className="figure-value num">{percent(agreed, words.language)}</span>
        <span className="dim">{words("agreed")}</span>
      </p>
      <p className="small num">
        {words("counts", { accept: count("accept"), edit: count("edit"), reject: count("reject") })}
      </p>
      <Weeks weeks={weeksOf(entries)} />
    </Section>
  );
}

const HEIGHT = 64;

function Weeks({ weeks }: { weeks: readonly Week[] }) {
  const words = useWords();
  const most = Math.max(1, ...weeks.map((one) => one.accept + one.other));
  const width = 14 * Math.max(26, weeks.length); // half a year, so that a bar is as wide on the first day as later
  return (
    <figure className="weeks">
      <svg
        viewBox={`0 0 ${width} ${HEIGHT}`}
        preserveAspectRatio="xMinYMax"
        role="img"
        aria-label={words("agreementOverTime")}
      >
        {weeks.map((one, number) => {
          const accept = (HEIGHT * one.accept) / most;
          const other = (HEIGHT * one.other) / most;
          return (
            <g key={one.start}>
              <title>{words("weekOf", { day: one.start, accept: one.accept, other: one.other })}</title>
              <rect className="agree" x={14 * number + 2} width={10} y={HEIGHT - accept} height={accept} />
              <rect
                className="differ"
                x={14 * number + 2}
                width={10}
                y={HEIGHT - accept - other}
                height={other}
              />
            </g>
          );
        })}
      </svg>
      <figcaption className="dim small">
        {words("weeksFromTo", { from: weeks[0]?.start ?? "", to: weeks.at(-1)?.start ?? "" })}
      </figcaption>
    </figure>
  );
}

function Disagreements({ entries }: { entries: readonly FeedbackEntry[] }) {
  const words = useWords();
  if (entries.length === 0) return null;
  return (
    <Section title={words("disagreements")} aside={<span className="dim num">{entries.length}</span>}>
      <table className="plain-table">
        <thead>
          <tr>
            <th scope="col">{words("when")}</th>
            <th scope="col">{words("reader")}</th>
            <th scope="col">{words("finding")}</th>
            <th scope="col">{words("readerSaid")}</th>
            <th scope="col">{words("personSaid")}</th>
            <th scope="col">{words("reason")}</th>
            <th scope="col">{words("study")}</th>
          </tr>
        </thead>
        <tbody>
          {entries.map((one) => (
            <tr key={one.id}>
              <td className="num">{moment(one.created, words.language)}</td>
              <td>{one.reader}</td>
              <td>{one.label}</td>
              <td>
                <Decision decision={one.decision} />{" "}
                <span className="dim num">
                  {one.probability === null ? "" : fixed(one.probability, 3, words.language)}
                </span>
              </td>
              <td>
                {one.corrected ? <Decision decision={one.corrected} /> : words("rejected")}{" "}
                <span className="dim">{one.by}</span>
              </td>
              <td className="reason-cell">{one.reason}</td>
              <td>
                <a href={`#/${studyPath(one.study_id)}`}>{words("open")}</a>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Section>
  );
}
