/** What is to be looked at, most urgent first; driven by the keyboard, kept up to date by the service. */
import { useQueryClient } from "@tanstack/react-query";
import { Search } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import type { Study } from "../api/client";
import { useEvents } from "../api/events";
import { type Asked, useLoadPhantoms, useWorklist } from "../api/queries";
import { useWords } from "../i18n";
import { useKeys } from "../keys";
import { prepareStudyParts } from "../pages";
import { go, studyPath } from "../router";
import { Button, Empty, Problem, Spinner } from "../ui/parts";
import { StudyTable } from "./table";
import { UploadButton, useUploads } from "./upload";

const NOTHING_ASKED: Asked = {
  q: "",
  status: "",
  modality: "",
  body_part: "",
  decision: "",
  days: 0,
  order: "urgency",
};
const NO_STUDIES: Study[] = [];
const KEY = "wetread.worklist";

function remembered(): Asked {
  try {
    return { ...NOTHING_ASKED, ...JSON.parse(sessionStorage.getItem(KEY) ?? "{}") };
  } catch {
    return NOTHING_ASKED;
  }
}

export function Worklist() {
  const words = useWords();
  const client = useQueryClient();
  const [asked, setAsked] = useState<Asked>(remembered);
  const [pages, setPages] = useState(1);
  const [selected, setSelected] = useState(0);
  const search = useRef<HTMLInputElement>(null);
  const list = useWorklist(asked, pages);
  const uploads = useUploads();
  const studies = list.data?.studies ?? NO_STUDIES;
  const chosen = Math.min(selected, Math.max(0, studies.length - 1));
  useEvents("/api/v1/events", () => client.invalidateQueries({ queryKey: ["worklist"] }));
  useEffect(() => {
    // The search may hold a name: it is kept for this window alone, and not when it is closed.
    sessionStorage.setItem(KEY, JSON.stringify({ ...asked, q: "" }));
    sessionStorage.setItem("wetread.order", JSON.stringify(studies.map((one) => one.id)));
  }, [asked, studies]);
  useEffect(prepareStudyParts, []);
  const move = (by: number) => setSelected(Math.max(0, Math.min(studies.length - 1, chosen + by)));
  const open = (index: number) => {
    const study = studies[index];
    if (study) go(studyPath(study.id));
  };
  useKeys({
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    Enter: () => open(chosen),
    "/": () => search.current?.focus(),
    u: () => uploads.choose(),
  });
  const change = (part: Partial<Asked>) => {
    setAsked({ ...asked, ...part });
    setPages(1);
    setSelected(0);
  };
  return (
    <div className="worklist" {...uploads.drop}>
      <h1 className="hidden">{words("worklist")}</h1>
      <div className="worklist-bar">
        <search className="search">
          <Search size={15} aria-hidden="true" />
          <input
            ref={search}
            type="search"
            aria-label={words("searchLabel")}
            placeholder={words("searchPlaceholder")}
            value={asked.q}
            onChange={(event) => change({ q: event.target.value })}
            onKeyDown={(event) => {
              if (event.key !== "Escape") return;
              event.preventDefault(); // the browser would empty the field
              event.currentTarget.blur();
            }}
          />
        </search>
        <Filters asked={asked} change={change} studies={studies} />
        <p className="count" aria-live="polite">
          {list.data && words(list.data.total === 1 ? "studyCount" : "studiesCount", { n: list.data.total })}
        </p>
        <UploadButton uploads={uploads} />
      </div>
      {uploads.panel}
      {list.isPending && <Spinner label={words("loading")} />}
      {list.isError && <Problem error={list.error} onRetry={() => list.refetch()} />}
      {list.data && (
        <Found
          studies={studies}
          selected={chosen}
          more={list.data.more}
          filtered={isFiltered(asked)}
          onSelect={setSelected}
          onOpen={open}
          onMore={() => setPages(pages + 1)}
          onClear={() => change(NOTHING_ASKED)}
          onChoose={uploads.choose}
        />
      )}
      {uploads.dragging && <div className="drop-target">{words("dropHere")}</div>}
    </div>
  );
}

interface FoundProps {
  studies: readonly Study[];
  selected: number;
  more: boolean;
  filtered: boolean;
  onSelect: (index: number) => void;
  onOpen: (index: number) => void;
  onMore: () => void;
  onClear: () => void;
  onChoose: () => void;
}

function Found(props: FoundProps) {
  const words = useWords();
  if (props.studies.length === 0) {
    return props.filtered ? <Nothing onClear={props.onClear} /> : <FirstRun choose={props.onChoose} />;
  }
  return (
    <>
      <StudyTable {...props} />
      {props.more && (
        <div className="more">
          <Button onClick={props.onMore}>{words("showMore")}</Button>
        </div>
      )}
    </>
  );
}

function isFiltered({ q, status, modality, body_part, decision, days }: Asked): boolean {
  return days > 0 || [q, status, modality, body_part, decision].some((one) => one !== "");
}

const MODALITIES = ["CR", "DX", "CT", "MR", "US"];
const PARTS = ["CHEST", "ABDOMEN", "HEART", "SKULL"];
const AGES = [1, 7, 30, 365];

function Filters(props: { asked: Asked; change: (part: Partial<Asked>) => void; studies: readonly Study[] }) {
  const words = useWords();
  const { asked, change, studies } = props;
  const modalities = known(MODALITIES, [asked.modality, ...studies.map((one) => one.modality)]);
  const parts = known(PARTS, [asked.body_part, ...studies.map((one) => one.body_part)]);
  return (
    <div className="filters">
      <select
        aria-label={words("status")}
        value={asked.status}
        onChange={(e) => change({ status: e.target.value as Asked["status"] })}
      >
        <option value="">{words("anyStatus")}</option>
        <option value="open">{words("statusOpen")}</option>
        <option value="read">{words("statusRead")}</option>
        <option value="failed">{words("statusFailed")}</option>
      </select>
      <select
        aria-label={words("answer")}
        value={asked.decision}
        onChange={(e) => change({ decision: e.target.value as Asked["decision"] })}
      >
        <option value="">{words("anyAnswer")}</option>
        <option value="positive">{words("positive")}</option>
        <option value="negative">{words("negative")}</option>
        <option value="withheld">{words("withheld")}</option>
      </select>
      <select
        aria-label={words("modality")}
        value={asked.modality}
        onChange={(e) => change({ modality: e.target.value })}
      >
        <option value="">{words("anyModality")}</option>
        {modalities.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </select>
      <select
        aria-label={words("bodyPart")}
        value={asked.body_part}
        onChange={(e) => change({ body_part: e.target.value })}
      >
        <option value="">{words("anyBodyPart")}</option>
        {parts.map((one) => (
          <option key={one} value={one}>
            {one.charAt(0) + one.slice(1).toLowerCase()}
          </option>
        ))}
      </select>
      <select
        aria-label={words("ageOfStudy")}
        value={asked.days}
        onChange={(e) => change({ days: Number(e.target.value) })}
      >
        <option value={0}>{words("anyAge")}</option>
        {AGES.map((one) => (
          <option key={one} value={one}>
            {words(one === 1 ? "lastDay" : "lastDays", { n: one })}
          </option>
        ))}
      </select>
      <select
        aria-label={words("orderBy")}
        value={asked.order}
        onChange={(e) => change({ order: e.target.value as Asked["order"] })}
      >
        <option value="urgency">{words("urgentFirst")}</option>
        <option value="newest">{words("newestFirst")}</option>
      </select>
    </div>
  );
}

function FirstRun({ choose }: { choose: () => void }) {
  const words = useWords();
  const phantoms = useLoadPhantoms();
  return (
    <Empty title={words("nothingYet")}>
      <p>{words("nothingYetHint")}</p>
      <div className="row">
        <Button kind="main" onClick={choose}>
          {words("uploadImages")}
        </Button>
        <Button onClick={() => phantoms.mutate()} disabled={phantoms.isPending}>
          {phantoms.isPending ? words("makingPhantoms") : words("loadPhantoms")}
        </Button>
      </div>
      <p className="dim small">{words("phantomsHint")}</p>
      {phantoms.isError && <Problem error={phantoms.error} />}
    </Empty>
  );
}

function Nothing({ onClear }: { onClear: () => void }) {
  const words = useWords();
  return (
    <Empty title={words("nothingMatches")}>
      <Button onClick={onClear}>{words("clearFilters")}</Button>
    </Empty>
  );
}

/** The usual choices and those that occur, in order. */
function known(usual: readonly string[], found: (string | null)[]): string[] {
  return [...new Set([...usual, ...found.filter((one): one is string => !!one)])].sort();
}
