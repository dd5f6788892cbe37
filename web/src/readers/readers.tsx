/** The readers of this installation: what each is for, how well it does, what its audit says. */
import { useEffect } from "react";
import type { ReaderInfo } from "../api/client";
import { useReader, useReaders } from "../api/queries";
import type { AuditRecord, CardMetric, CardRecord, Estimate } from "../api/records";
import { fixed, useWords } from "../i18n";
import { go } from "../router";
import { AuditLines, verdictTone } from "../study/trust";
import { Badge, Problem, Section, Spinner } from "../ui/parts";

export default function Readers({ chosen }: { chosen: string }) {
  const words = useWords();
  const readers = useReaders();
  const first = readers.data?.[0]?.name ?? "";
  useEffect(() => {
    if (!chosen && first) history.replaceState(null, "", `#/readers/${first}`);
  }, [chosen, first]);
  if (readers.isPending) return <Spinner label={words("loading")} />;
  if (readers.isError) return <Problem error={readers.error} onRetry={() => readers.refetch()} />;
  const name = chosen || first;
  return (
    <div className="two-columns">
      <h1 className="hidden">{words("readers")}</h1>
      <nav className="cards" aria-label={words("readers")}>
        {readers.data.map((one) => (
          <ReaderCard key={one.name} info={one} current={one.name === name} />
        ))}
      </nav>
      {name && <Details key={name} name={name} />}
    </div>
  );
}

function ReaderCard({ info, current }: { info: ReaderInfo; current: boolean }) {
  const words = useWords();
  const card = info.card as unknown as CardRecord;
  const full = useReader(info.name).data;
  const audit = (full?.audit ?? null) as unknown as AuditRecord | null;
  const verdict = audit?.verdict ?? info.audit_verdict;
  return (
    <button
      type="button"
      className="reader-card"
      aria-current={current || undefined}
      onClick={() => go(`readers/${info.name}`)}
    >
      <strong>{info.name}</strong>
      <span className="dim small">{`${words(info.kind === "segmenter" ? "segmenter" : "reader")} · ${card.architecture}`}</span>
      <span className="verdict" title={verdict}>
        <Badge tone={verdictTone(verdict)}>{verdict}</Badge>
      </span>
    </button>
  );
}

function Details({ name }: { name: string }) {
  const words = useWords();
  const reader = useReader(name);
  if (reader.isPending) return <Spinner label={words("loading")} />;
  if (reader.isError) return <Problem error={reader.error} />;
  const info = reader.data;
  const card = info.card as unknown as CardRecord;
  const audit = (info.audit ?? null) as unknown as AuditRecord | null;
  return (
    <div className="details">
      <header className="details-head">
        <h2>{info.name}</h2>
        <span className="dim">{card.version}</span>
        <code title={info.sha256}>{info.sha256.slice(0, 12)}</code>
      </header>
      <p>{card.intended_use}</p>
      <div className="columns">
        <Section title={words("learnedFrom")}>
          {card.data ? (
            <dl className="pairs">
              <dt>{words("dataSet")}</dt>
              <dd>
                {card.data.name} <span className="dim">{card.data.licence}</span>
              </dd>
              <dt>{words("population")}</dt>
              <dd>{card.data.population}</dd>
              <dt>{words("images")}</dt>
              <dd className="num">{card.data.images.toLocaleString(words.language)}</dd>
              <dt>{words("patients")}</dt>
              <dd className="num">{card.data.patients.toLocaleString(words.language)}</dd>
              <dt>{words("licence")}</dt>
              <dd>{card.licence}</dd>
            </dl>
          ) : (
            <p className="dim">–</p>
          )}
        </Section>
        <Section title={words("limits")}>
          <ul className="reasons">
            {card.limits.map((limit) => (
              <li key={limit}>{limit}</li>
            ))}
          </ul>
        </Section>
      </div>
      <Metrics metrics={card.metrics} point={card.default_operating_point ?? ""} />
      <Section
        title={words("audit")}
        aside={audit && <Badge tone={verdictTone(audit.verdict)}>{audit.verdict}</Badge>}
      >
        {audit ? (
          <>
            <p className="dim small">
              {words("auditedOn", {
                data: audit.data,
                split: audit.split,
                n: audit.n,
                patients: audit.patients,
              })}
            </p>
            <AuditLines lines={audit.lines} open />
          </>
        ) : (
          <p className="dim">{words("noAudit")}</p>
        )}
      </Section>
    </div>
  );
}

function Metrics({ metrics, point }: { metrics: readonly CardMetric[]; point: string }) {
  const words = useWords();
  if (metrics.length === 0) return null;
  const usual = metrics.filter((one) => one.operating_point === null || one.operating_point === point);
  const others = metrics.filter((one) => !usual.includes(one));
  return (
    <Section title={words("metrics")}>
      <MetricTable metrics={usual} />
      {others.length > 0 && (
        <details>
          <summary>{words("otherPoints", { n: others.length })}</summary>
          <MetricTable metrics={others} />
        </details>
      )}
      <p className="dim small">{words("intervalHint")}</p>
    </Section>
  );
}

function MetricTable({ metrics }: { metrics: readonly CardMetric[] }) {
  const words = useWords();
  return (
    <table className="plain-table">
      <thead>
        <tr>
          <th scope="col">{words("metric")}</th>
          <th scope="col">{words("split")}</th>
          <th scope="col">{words("at")}</th>
          <th scope="col" className="number">
            {words("value")}
          </th>
          <th scope="col" className="number">
            {words("interval")}
          </th>
          <th scope="col" className="interval-cell">
            <span className="hidden">{words("interval")}</span>
          </th>
          <th scope="col" className="number">
            n
          </th>
        </tr>
      </thead>
      <tbody>
        {metrics.map((one) => (
          <tr
            key={`${one.name} ${one.split} ${one.operating_point}`}
            title={[one.estimate.method, one.estimate.note].filter(Boolean).join("; ")}
          >
            <th scope="row">{one.name.replaceAll("_", " ")}</th>
            <td>{one.split}</td>
            <td className="dim">{one.operating_point ?? ""}</td>
            <td className="number">
              {one.estimate.value === null ? "–" : fixed(one.estimate.value, 3, words.language)}
            </td>
            <td className="number dim">{interval(one.estimate, words.language)}</td>
            <td>
              <Interval estimate={one.estimate} />
            </td>
            <td className="number">{one.estimate.n.toLocaleString(words.language)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function interval(one: Estimate, language: "en" | "es"): string {
  return one.low === null || one.high === null
    ? "–"
    : `${fixed(one.low, 3, language)} – ${fixed(one.high, 3, language)}`;
}

/** The value and its interval on a line from 0 to 1. */
function Interval({ estimate }: { estimate: Estimate }) {
  const { value, low, high } = estimate;
  if (value === null || low === null || high === null || low < 0 || high > 1) return null;
  return (
    <svg className="interval" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
      <line className="axis" x1="0" x2="100" y1="4" y2="4" />
      <line x1={100 * low} x2={100 * high} y1="4" y2="4" />
      <rect x={100 * value - 0.8} y="0.5" width="1.6" height="7" />
    </svg>
  );
}
