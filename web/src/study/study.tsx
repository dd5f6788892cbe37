/** One study: its images in the middle, what was found of them on the right, other images and studies on the left. */
import { useQueryClient } from "@tanstack/react-query";
import { ArrowLeft } from "lucide-react";
import { useCallback, useEffect, useRef, useState } from "react";
import { beginImage, forgetImages } from "../api/early";
import type { Session, StudyDetail } from "../api/client";
import { useEvents } from "../api/events";
import { usePriors, useStudy } from "../api/queries";
import { dicomDate, useWords } from "../i18n";
import { useKeys } from "../keys";
import { Viewer } from "../pages";
import { go, studyPath } from "../router";
import { Problem, Spinner } from "../ui/parts";
import { Preview } from "../viewer/preview";
import { Patient, Status } from "../worklist/table";
import { Assistant } from "./assistant";
import { Findings } from "./findings";
import { Rail } from "./rail";
import { Report } from "./report";
import { addressOf, previewOf, type Stage, useStage } from "./stage";

type Panel = "findings" | "report" | "assistant";

export default function Study({ id, beside, session }: { id: string; beside: string; session: Session }) {
  const words = useWords();
  const client = useQueryClient();
  const study = useStudy(id);
  const [round, setRound] = useState(0);
  const told = useRef("");
  useEvents(
    `/api/v1/studies/${id}/events`,
    ({ done, total }) => {
      // Each look at a study is a line of the audit log: look again only when a job has ended since.
      const now = `${done}/${total}`;
      const open = study.data?.jobs.filter((one) => one.state === "queued" || one.state === "running").length;
      const known = told.current === now || (told.current === "" && open === Number(total) - Number(done));
      told.current = now;
      if (!known) void client.invalidateQueries({ queryKey: ["study", id] });
    },
    round,
  );
  const listen = useCallback(() => {
    told.current = "asked"; // whatever the new stream says first is news
    setRound((before) => before + 1);
  }, []);
  if (study.isPending) return <Spinner label={words("loading")} />;
  if (study.isError) return <Problem error={study.error} onRetry={() => study.refetch()} />;
  return <Opened study={study.data} beside={beside} session={session} onAsked={listen} />;
}

function Opened(props: { study: StudyDetail; beside: string; session: Session; onAsked: () => void }) {
  const { study, beside, session, onAsked } = props;
  const words = useWords();
  const stage = useStage(study);
  const first = useRef(stage.place);
  useEffect(() => {
    if (first.current) beginImage(addressOf(first.current));
    return forgetImages;
  }, []);
  const priors = usePriors(study.id);
  const [panel, setPanel] = useState<Panel>("findings");
  useKeys({
    f: () => setPanel("findings"),
    d: () => setPanel("report"),
    q: () => setPanel("assistant"),
    n: () => openNext(study.id),
    Backspace: () => go(""),
  });
  const sender = study.image_list.map((one) => one.facts.received_from).find(Boolean);
  const about = [study.modality, study.body_part?.toLowerCase()];
  if (sender) about.push(words("receivedFrom", { title: String(sender) }));
  const tabs: [Panel, string][] = [
    ["findings", words("findings")],
    ["report", words("report")],
    ["assistant", words("assistant")],
  ];
  return (
    <div className="study" data-study={study.id}>
      <header className="study-head">
        <a className="back" href="#/" aria-label={words("backToWorklist")} title={words("backToWorklist")}>
          <ArrowLeft size={16} />
        </a>
        <h1>
          <Patient study={study} />
        </h1>
        <span className="study-title">
          {study.title || words("untitled")} <span className="dim num">{dicomDate(study.study_date)}</span>
        </span>
        <span className="dim">{about.filter(Boolean).join(" · ")}</span>
        <Status status={study.status} />
      </header>
      <Rail stage={stage} priors={priors.data ?? []} beside={beside} />
      <Middle stage={stage} beside={beside} session={session} />
      <aside className="panel" aria-label={words("findings")}>
        <div className="tabs" role="tablist">
          {tabs.map(([name, label]) => (
            <button
              key={name}
              type="button"
              role="tab"
              id={`tab-${name}`}
              aria-selected={panel === name}
              aria-controls={`panel-${name}`}
              onClick={() => setPanel(name)}
            >
              {label}
            </button>
          ))}
        </div>
        <div className="panel-body" role="tabpanel" id={`panel-${panel}`} aria-labelledby={`tab-${panel}`}>
          {panel === "findings" && <Findings stage={stage} session={session} onAsked={onAsked} />}
          {panel === "report" && <Report stage={stage} session={session} />}
          {panel === "assistant" && <Assistant stage={stage} onAsked={onAsked} />}
        </div>
      </aside>
    </div>
  );
}

/** The viewer; where there is a small picture, that comes first, and the viewer is not begun before it is seen. */
function Middle({ stage, beside, session }: { stage: Stage; beside: string; session: Session }) {
  const picture = useRef(previewOf(stage.place)).current;
  const [seen, setSeen] = useState(picture === undefined || Viewer.ready());
  const see = useCallback(() => setSeen(true), []);
  const waiting = (
    <section className="reading" data-testid="before-viewer">
      <div className="toolbar" />
      <div className="pane">{picture && <Preview address={picture} onShown={see} />}</div>
      <footer className="legend" />
    </section>
  );
  return seen ? <Viewer stage={stage} beside={beside} session={session} waiting={waiting} /> : waiting;
}

/** The next study in the order in which the worklist was last seen. */
function openNext(id: string): void {
  const order: string[] = JSON.parse(sessionStorage.getItem("wetread.order") ?? "[]");
  const next = order[order.indexOf(id) + 1];
  if (next) go(studyPath(next));
}
