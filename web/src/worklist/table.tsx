/** The table of studies. One row is current; Enter opens it, and a click does. */
import { useEffect, useRef } from "react";
import type { Study } from "../api/client";
import { age, dicomDate, fixed, personName, useWords } from "../i18n";
import { usePreferences } from "../preferences";
import { studyPath } from "../router";
import { useNow } from "../ui/now";
import { Badge, Decision } from "../ui/parts";

interface Props {
  studies: readonly Study[];
  selected: number;
  onSelect: (index: number) => void;
  onOpen: (index: number) => void;
}

export function StudyTable({ studies, selected, onSelect, onOpen }: Props) {
  const words = useWords();
  const now = useNow();
  return (
    <div className="table-wrap">
      <table className="studies">
        <thead>
          <tr>
            <th scope="col">{words("urgency")}</th>
            <th scope="col">{words("status")}</th>
            <th scope="col">{words("finding")}</th>
            <th scope="col">{words("patient")}</th>
            <th scope="col">{words("study")}</th>
            <th scope="col">{words("modality")}</th>
            <th scope="col">{words("bodyPart")}</th>
            <th scope="col" className="number">
              {words("images")}
            </th>
            <th scope="col" className="number">
              {words("received")}
            </th>
          </tr>
        </thead>
        <tbody>
          {studies.map((study, index) => (
            <Row
              key={study.id}
              study={study}
              now={now}
              current={index === selected}
              onSelect={() => onSelect(index)}
              onOpen={() => onOpen(index)}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row(props: {
  study: Study;
  now: number;
  current: boolean;
  onSelect: () => void;
  onOpen: () => void;
}) {
  const { study, current } = props;
  const words = useWords();
  const row = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (current) row.current?.scrollIntoView({ block: "nearest" });
  }, [current]);
  return (
    // the link in the row is the way of the keyboard
    <tr ref={row} aria-current={current || undefined} onMouseEnter={props.onSelect} onClick={props.onOpen}>
      <td>
        <Urgency study={study} />
      </td>
      <td>
        <Status status={study.status} />
      </td>
      <td>
        <span className="finding-cell">
          <Decision decision={study.decision} />
          {study.finding && study.finding !== "withheld" && <span>{study.finding}</span>}
        </span>
      </td>
      <td>
        <Patient study={study} />
      </td>
      <td>
        <a
          href={`#/${studyPath(study.id)}`}
          onFocus={props.onSelect}
          onClick={(event) => event.stopPropagation()}
        >
          {study.title || words("untitled")}
        </a>
        <span className="dim num"> {dicomDate(study.study_date)}</span>
      </td>
      <td>{study.modality ?? "–"}</td>
      <td className="body-part">{study.body_part?.toLowerCase() ?? "–"}</td>
      <td className="number">{study.images}</td>
      <td className="number" title={new Date(study.created * 1000).toLocaleString()}>
        {age(props.now - study.created)}
      </td>
    </tr>
  );
}

function Urgency({ study }: { study: Study }) {
  const words = useWords();
  if (study.decision === null || study.decision === "withheld") return <span className="dim">–</span>;
  return (
    <span className="urgency" title={words("urgencyHint")}>
      <meter className={study.decision} min={0} max={1} value={study.urgency} aria-hidden="true" />
      <span className="num">{fixed(study.urgency, 2, words.language)}</span>
    </span>
  );
}

export function Status({ status }: { status: string }) {
  const words = useWords();
  if (status === "open")
    return (
      <Badge tone="accent">
        <span className="pulse" aria-hidden="true" />
        {words("statusOpen")}
      </Badge>
    );
  if (status === "failed") return <Badge tone="fail">{words("statusFailed")}</Badge>;
  return <Badge>{words("statusRead")}</Badge>;
}

export function Patient({ study }: { study: Study }) {
  const words = useWords();
  const { hideNames } = usePreferences();
  const facts = [
    study.patient_sex,
    study.patient_age === null ? null : `${Math.floor(study.patient_age)} ${words("years")}`,
  ];
  return (
    <span className="patient">
      {hideNames ? (
        <span className="dim">{words("nameHidden")}</span>
      ) : (
        <>
          <span>{personName(study.patient_name) || words("unnamed")}</span>
          {study.patient_id && <span className="dim">{study.patient_id}</span>}
        </>
      )}
      <span className="dim">{facts.filter(Boolean).join(" ")}</span>
    </span>
  );
}
