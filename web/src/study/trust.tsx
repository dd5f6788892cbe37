/** Why the reader may or may not be believed: its audit, line by line in plain words, and its own limits. */
import { useReader } from "../api/queries";
import type { AuditLineRecord, AuditRecord, CardRecord, ReadRecord } from "../api/records";
import { useWords } from "../i18n";
import { Badge, Section, type Tone } from "../ui/parts";

const TONES: Record<string, Tone> = { PASS: "pass", WARN: "warn", FAIL: "fail" };
const ORDER = ["FAIL", "WARN", "NOT ASSESSABLE", "PASS"];

export function verdictTone(verdict: string): Tone {
  const word = verdict.toUpperCase().split(" ")[0] ?? "";
  return TONES[word] ?? "plain";
}

interface Verdict {
  verdict: string;
  /** Whether the reader failed its audit, and in which words; then every picture of it says so. */
  failed: boolean;
  watermark: string;
  audit: AuditRecord | null;
}

/** What the audit says now; what it said when the image was read, where the reader is another one by now. */
export function useVerdict(read: ReadRecord): Verdict {
  const info = useReader(read.model.name).data;
  const audit =
    info?.sha256 === read.model.sha256 ? ((info.audit ?? null) as unknown as AuditRecord | null) : null;
  const verdict = audit?.verdict ?? read.model.audit_verdict;
  const watermark = audit?.watermark ?? "";
  return { verdict, watermark, failed: watermark !== "" || verdictTone(verdict) === "fail", audit };
}

export function Trust({ read }: { read: ReadRecord }) {
  const words = useWords();
  const info = useReader(read.model.name).data;
  const { verdict, audit } = useVerdict(read);
  const card = info?.card as unknown as CardRecord | undefined;
  return (
    <Section title={words("trust")} aside={<Badge tone={verdictTone(verdict)}>{verdict}</Badge>}>
      <p className="small">
        {words("readBy", { name: read.model.name, version: read.model.version })}{" "}
        <code title={read.model.sha256}>{read.model.sha256.slice(0, 12)}</code>
      </p>
      {audit ? (
        <AuditLines lines={audit.lines} open={false} />
      ) : (
        <p className="dim small">{words("noAudit")}</p>
      )}
      {card && card.limits.length > 0 && (
        <details>
          <summary>{words("knownLimits", { n: card.limits.length })}</summary>
          <ul className="reasons">
            {card.limits.map((limit) => (
              <li key={limit}>{limit}</li>
            ))}
          </ul>
        </details>
      )}
      <p className="dim small">{words("machineEnglish")}</p>
    </Section>
  );
}

export function AuditLines({ lines, open }: { lines: readonly AuditLineRecord[]; open: boolean }) {
  const words = useWords();
  const sorted = [...lines].sort((one, other) => ORDER.indexOf(one.answer) - ORDER.indexOf(other.answer));
  const bad = sorted.filter((one) => open || one.answer === "FAIL" || one.answer === "WARN");
  const rest = sorted.filter((one) => !bad.includes(one));
  return (
    <>
      <ul className="audit-lines">{bad.map(auditLine)}</ul>
      {rest.length > 0 && (
        <details>
          <summary>{words("otherChecks", { n: rest.length })}</summary>
          <ul className="audit-lines">{rest.map(auditLine)}</ul>
        </details>
      )}
    </>
  );
}

function auditLine(line: AuditLineRecord) {
  return (
    <li key={line.code}>
      <Badge tone={TONES[line.answer] ?? "plain"}>
        {line.answer === "NOT ASSESSABLE" ? "n/a" : line.answer}
      </Badge>
      <div>
        <strong>{line.question}</strong>
        <p>
          {line.sentence} {line.n !== null && <span className="dim num">n = {line.n}</span>}
        </p>
      </div>
      <span className="dim num small">{line.code}</span>
    </li>
  );
}
