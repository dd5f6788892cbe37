/** The draft report: the machine's phrases with their facts, the person's own text, the signature. */
import { FileDown, PenLine, Printer, RefreshCw } from "lucide-react";
import { useState } from "react";
import { createPortal } from "react-dom";
import type { Draft, Session } from "../api/client";
import { useDraft, useDraftChange } from "../api/queries";
import { dicomDate, moment, personName, useWords } from "../i18n";
import { usePreferences } from "../preferences";
import { Badge, Button, Problem, Section, Spinner } from "../ui/parts";
import { Phrases } from "./facts";
import type { Stage } from "./stage";

export function Report({ stage, session }: { stage: Stage; session: Session }) {
  const words = useWords();
  const draft = useDraft(stage.study.id, session.role !== "reader");
  if (session.role === "reader") return <p className="dim padded">{words("reportNeedsAnnotator")}</p>;
  if (draft.isPending) return <Spinner label={words("loading")} />;
  if (draft.isError) return <Problem error={draft.error} onRetry={() => draft.refetch()} />;
  return (
    <Editor
      key={`${draft.data.id} ${draft.data.revision}`}
      draft={draft.data}
      stage={stage}
      session={session}
    />
  );
}

function Editor({ draft, stage, session }: { draft: Draft; stage: Stage; session: Session }) {
  const words = useWords();
  const change = useDraftChange(stage.study.id);
  const [text, setText] = useState(draft.text);
  const [sure, setSure] = useState(false);
  const signed = draft.signed !== null;
  const changed = text !== draft.text;
  const revision = draft.revision;
  return (
    <>
      <Section
        title={words("machineDraft")}
        aside={
          !signed && (
            <Button kind="quiet" disabled={change.isPending} onClick={() => change.mutate({ do: "renew" })}>
              <RefreshCw size={14} aria-hidden="true" /> {words("renew")}
            </Button>
          )
        }
      >
        {draft.phrases.length === 0 && <p className="dim small">{words("nothingToDraft")}</p>}
        <Phrases phrases={draft.phrases} facts={draft.facts} stage={stage} />
        <p className="dim small">{words("phrasesHint")}</p>
      </Section>
      <Section
        title={words("yourReport")}
        aside={
          signed ? (
            <Badge tone="pass">
              {words("signedAt", { when: moment(draft.signed ?? 0, words.language) })}
            </Badge>
          ) : (
            <span className="dim small num">{words("revision", { n: revision })}</span>
          )
        }
      >
        {change.isError && <Problem error={change.error} />}
        <textarea
          className="report-text"
          aria-label={words("yourReport")}
          readOnly={signed}
          value={text}
          maxLength={20000}
          rows={12}
          onChange={(event) => setText(event.target.value)}
        />
        <p className="dim small">{words("disclaimer")}</p>
        <div className="row">
          {!signed && (
            <>
              <Button
                disabled={!changed || change.isPending}
                onClick={() => change.mutate({ do: "save", text, revision })}
              >
                {words("save")}
              </Button>
              <Button
                kind="main"
                disabled={change.isPending || text.trim() === ""}
                onClick={() => setSure(true)}
              >
                <PenLine size={14} aria-hidden="true" /> {words("sign")}
              </Button>
            </>
          )}
          <Button onClick={() => window.print()}>
            <Printer size={14} aria-hidden="true" /> {words("print")}
          </Button>
          <a
            className="button plain"
            href={`/api/v1/studies/${stage.study.id}/report.pdf`}
            title={words("pdfHint")}
            download
          >
            <FileDown size={14} aria-hidden="true" /> PDF
          </a>
        </div>
        {sure && !signed && (
          <div className="notice" role="alertdialog" aria-label={words("sign")}>
            <p>{words("signSure")}</p>
            <div className="row">
              <Button
                kind="main"
                onClick={() =>
                  change.mutate({ do: "sign", text, revision }, { onSettled: () => setSure(false) })
                }
              >
                {words("signNow")}
              </Button>
              <Button onClick={() => setSure(false)}>{words("notYet")}</Button>
            </div>
          </div>
        )}
      </Section>
      <Sheet draft={{ ...draft, text }} stage={stage} session={session} />
    </>
  );
}

/** What is printed; on the screen it is hidden. */
function Sheet({ draft, stage, session }: { draft: Draft; stage: Stage; session: Session }) {
  const words = useWords();
  const { hideNames } = usePreferences();
  const { study } = stage;
  return createPortal(
    <section className="sheet" aria-hidden="true">
      <h2>{words("report")}</h2>
      <p>
        {hideNames ? words("nameHidden") : `${personName(study.patient_name)} · ${study.patient_id ?? ""}`}
        <br />
        {study.title} {dicomDate(study.study_date)}
      </p>
      <div className="sheet-text">{draft.text}</div>
      <p>
        {draft.signed === null
          ? words("notSigned")
          : words("signedBy", { name: session.name, when: moment(draft.signed, words.language) })}
      </p>
      <p>{words("disclaimer")}</p>
    </section>,
    document.body,
  );
}
