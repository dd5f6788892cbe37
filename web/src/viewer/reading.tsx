/** The middle of a study: toolbar, the viewport, and beside it a prior study or a similar case. */
import { X } from "lucide-react";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Session, StudyDetail, StudyImage } from "../api/client";
import { pictureAddress, useAnnotate, useAnnotations, useStudy } from "../api/queries";
import { dicomDate, interval, personName, useWords, type Words } from "../i18n";
import { useKeys } from "../keys";
import { usePreferences } from "../preferences";
import { go, studyPath } from "../router";
import {
  addressOf,
  boxesOf,
  evidenceOf,
  heatOf,
  latest,
  organsOf,
  type Place,
  placesOf,
  previewOf,
  readOf,
  type Stage,
  startOf,
} from "../study/stage";
import { useVerdict } from "../study/trust";
import { IconButton, Problem, Spinner } from "../ui/parts";
import { Marks, type Measuring } from "./marks";
import { Boxes, Information, type Layer, Layers } from "./overlay";
import { Legend, Toolbar } from "./toolbar";
import { type LeftTool, setLeftTool } from "./engine";
import { type ShownImage, type View, Viewport } from "./viewport";

interface Props {
  stage: Stage;
  beside: string;
  session: Session;
}

export default function Reading({ stage, beside, session }: Props) {
  const words = useWords();
  const { viewport } = stage;
  const [tool, setTool] = useState<LeftTool>("window");
  const [measuring, setMeasuring] = useState<Measuring>(null);
  const presets = useRef<View["presets"]>([]);
  const [presetCount, setPresetCount] = useState(0);
  const noticePresets = useCallback((found: View["presets"]) => {
    presets.current = found;
    setPresetCount(found.length);
  }, []);
  const chooseTool = (chosen: LeftTool) => {
    setMeasuring(null);
    setTool(chosen);
    setLeftTool(chosen);
  };
  const step = (by: number) => viewport.current?.step(by);
  const toggleHeat = useHeatToggle(stage);
  const mayMeasure = session.role !== "reader";
  const two = beside !== "" || stage.caseBeside !== null;
  useKeys({
    ArrowRight: () => step(1),
    ArrowDown: () => step(1),
    ArrowLeft: () => step(-1),
    ArrowUp: () => step(-1),
    i: () => viewport.current?.invert(),
    r: () => viewport.current?.reset(),
    t: () => viewport.current?.rotate(),
    l: () => mayMeasure && setMeasuring("length"),
    a: () => mayMeasure && setMeasuring("angle"),
    Escape: () => setMeasuring(null),
    h: toggleHeat,
    " ": toggleHeat,
    m: () => stage.setMasks(!stage.masks),
    "[": () => stage.setOpacity(Math.max(0, stage.opacity - 0.1)),
    "]": () => stage.setOpacity(Math.min(1, stage.opacity + 0.1)),
    "+": () => viewport.current?.zoomBy(1.25),
    "-": () => viewport.current?.zoomBy(0.8),
    ...Object.fromEntries([1, 2, 3, 4, 5].map((n) => [String(n), () => viewport.current?.preset(n - 1)])),
  });
  return (
    <section className="reading" aria-label={words("viewer")}>
      <Toolbar
        stage={stage}
        tool={tool}
        onTool={chooseTool}
        measuring={measuring}
        onMeasuring={mayMeasure ? setMeasuring : null}
        presets={presetCount > 0 ? presets.current : []}
        onHeat={toggleHeat}
      />
      <div className={two ? "panes two" : "panes"}>
        <div className="pane">
          {two && (
            <PaneHead
              title={`${words("thisStudy")} ${dicomDate(stage.study.study_date) || words("undated")}`}
            />
          )}
          <Main stage={stage} measuring={measuring} onPresets={noticePresets} />
        </div>
        {beside ? <PriorPane id={beside} stage={stage} /> : stage.caseBeside && <CasePane stage={stage} />}
      </div>
      <Legend stage={stage} />
    </section>
  );
}

/** Show the heat map of the first label that has one, or hide what is shown. */
function useHeatToggle(stage: Stage): () => void {
  return () => {
    if (stage.heat !== null) {
      stage.setHeat(null);
      return;
    }
    const read = latest(stage.image, "read");
    if (!read) return;
    for (const reading of readOf(read).labels) {
      const heat = heatOf(stage.image, read, reading);
      if (heat !== null) {
        stage.setHeat(heat);
        return;
      }
    }
  };
}

const shownOf = (places: readonly Place[]): ShownImage[] =>
  places.map((one) => ({
    address: addressOf(one),
    modality: text(one.file.facts.modality),
    preview: previewOf(one),
  }));

function Main(props: { stage: Stage; measuring: Measuring; onPresets: (presets: View["presets"]) => void }) {
  const { stage, measuring, onPresets } = props;
  const words = useWords();
  const { places, place } = stage;
  if (!place) return <p className="padded">{words("noImages")}</p>;
  return (
    <Viewport
      images={shownOf(places)}
      index={stage.index}
      onIndex={stage.setIndex}
      handle={stage.viewport}
      label={words("imageNumber", { n: place.file.number })}
    >
      {(view) => (
        <>
          <Over view={view} stage={stage} place={place} measuring={measuring} onPresets={onPresets} />
          <Frames places={places} index={stage.index} onIndex={stage.setIndex} />
        </>
      )}
    </Viewport>
  );
}

interface OverProps {
  view: View;
  stage: Stage;
  place: Place;
  measuring: Measuring;
  onPresets: (presets: View["presets"]) => void;
}

function Over({ view, stage, place, measuring, onPresets }: OverProps) {
  const { file, image, frame } = place;
  const words = useWords();
  const annotations = (useAnnotations(file.id).data ?? []).filter((one) => one.frame === frame);
  const { add } = useAnnotate(file.id);
  const { presets } = view;
  useEffect(() => onPresets(presets), [presets, onPresets]);
  const spacing = spacingOf(image);
  const banner = useBanner(stage.study);
  const read = latest(image, "read");
  return (
    <>
      <Layers
        view={view}
        layers={layersOf(stage, image)}
        opacity={stage.opacity}
        rows={image.rows}
        columns={image.columns}
      />
      {stage.heat && evidenceOf(stage.study, stage.heat) && (
        <Boxes view={view} boxes={boxesOf(stage.study, stage.heat)} marked={stage.marked} />
      )}
      <Marks
        view={view}
        annotations={annotations}
        measuring={measuring}
        spacing={spacing}
        onDrawn={(kind, points) =>
          add.mutate({ kind, frame, points: points.map(([x, y]) => [x, y] as [number, number]), text: "" })
        }
      />
      {read ? (
        <Watermarked
          key={read.id}
          view={view}
          banner={banner}
          place={place}
          spacing={spacing}
          result={read}
        />
      ) : (
        <Information
          view={view}
          banner={banner}
          image={aboutImage(place, words)}
          spacing={spacing}
          watermark=""
        />
      )}
      {add.isError && <Problem error={add.error} />}
    </>
  );
}

function Watermarked(props: {
  view: View;
  banner: string[];
  place: Place;
  spacing: readonly [number, number] | null;
  result: NonNullable<ReturnType<typeof latest>>;
}) {
  const words = useWords();
  const { failed, watermark } = useVerdict(readOf(props.result));
  return (
    <Information
      view={props.view}
      banner={props.banner}
      image={aboutImage(props.place, words)}
      spacing={props.spacing}
      watermark={failed ? `${words("auditFailed")}. ${watermark}` : ""}
    />
  );
}

function layersOf(stage: Stage, image: StudyImage): Layer[] {
  const layers: Layer[] = [];
  const { heat } = stage;
  const source = heat && image.results.find((one) => one.id === heat.result);
  if (heat && source) {
    layers.push({
      kind: "heat",
      colour: 0,
      name: heat.label,
      address: pictureAddress(heat.result, `heat:${heat.label}`),
    });
  }
  const organs = latest(image, "segment");
  if (stage.masks && organs) {
    organsOf(organs).organs.forEach((one, colour) => {
      const name = `mask:${one.organ}`;
      if (organs.pictures.includes(name)) {
        layers.push({ kind: "mask", colour, name: one.organ, address: pictureAddress(organs.id, name) });
      }
    });
  }
  return layers;
}

function useBanner(study: StudyDetail): string[] {
  const words = useWords();
  const { hideNames } = usePreferences();
  const years = study.patient_age === null ? "" : `${Math.floor(study.patient_age)} ${words("years")}`;
  return [
    hideNames ? words("nameHidden") : personName(study.patient_name) || words("unnamed"),
    hideNames ? "" : (study.patient_id ?? ""),
    [study.patient_sex, years].filter(Boolean).join(" "),
    dicomDate(study.study_date),
  ];
}

function aboutImage({ file, frame }: Place, words: Words): string[] {
  const { facts } = file;
  return [
    [text(facts.modality) || file.kind, text(facts.body_part), text(facts.view), text(facts.laterality)]
      .filter(Boolean)
      .join(" "),
    `${words("image")} ${file.number}`,
    file.frames > 1 ? words("frameOf", { n: frame, of: file.frames }) : "",
    `${file.columns} × ${file.rows}`,
  ];
}

/** A slider through the frames of the file that is shown; the frames that were read are marked on it. */
function Frames(props: { places: readonly Place[]; index: number; onIndex: (index: number) => void }) {
  const { places, index, onIndex } = props;
  const words = useWords();
  const here = places[index];
  if (!here || here.file.frames === 1) return null;
  const first = index - (here.frame - 1);
  const own = places.slice(first, first + here.file.frames);
  const share = (frame: number) => (100 * (frame - 1)) / Math.max(1, own.length - 1);
  return (
    <div className="frames">
      <svg className="frames-read" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
        {own
          .filter((one) => one.readable)
          .map((one) => (
            <rect key={one.frame} x={share(one.frame) - 0.4} y="0" width="0.8" height="4" />
          ))}
      </svg>
      <input
        type="range"
        min={1}
        max={own.length}
        value={here.frame}
        aria-label={words("frame")}
        aria-valuetext={words("frameOf", { n: here.frame, of: own.length })}
        onChange={(event) => onIndex(first + Number(event.target.value) - 1)}
      />
    </div>
  );
}

export function spacingOf(image: StudyImage): readonly [number, number] | null {
  const found = image.facts.spacing_mm;
  return Array.isArray(found) && found.length === 2 ? [Number(found[0]), Number(found[1])] : null;
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");

function PaneHead({ title, onClose }: { title: string; onClose?: () => void }) {
  const words = useWords();
  return (
    <header className="pane-head">
      <span>{title}</span>
      {onClose && (
        <IconButton label={words("close")} onClick={onClose}>
          <X size={14} />
        </IconButton>
      )}
    </header>
  );
}

function PriorPane({ id, stage }: { id: string; stage: Stage }) {
  const words = useWords();
  const prior = useStudy(id);
  const close = () => go(studyPath(stage.study.id));
  if (prior.isPending) return <Spinner label={words("loading")} />;
  if (prior.isError) return <Problem error={prior.error} />;
  const apart = interval(prior.data.study_date, stage.study.study_date, words);
  const title = [words("prior"), dicomDate(prior.data.study_date) || words("undated"), apart && `· ${apart}`];
  return (
    <div className="pane" data-testid="beside">
      <PaneHead title={title.filter(Boolean).join(" ")} onClose={close} />
      <PriorImages study={prior.data} />
    </div>
  );
}

function PriorImages({ study }: { study: StudyDetail }) {
  const words = useWords();
  const places = useMemo(() => placesOf(study), [study]);
  const [index, setIndex] = useState(() => startOf(places, places[0]?.file));
  const place = places[index];
  return (
    <Viewport images={shownOf(places)} index={index} onIndex={setIndex} label={words("prior")}>
      {(view) =>
        place && (
          <>
            <PriorInformation view={view} study={study} place={place} />
            <Frames places={places} index={index} onIndex={setIndex} />
          </>
        )
      }
    </Viewport>
  );
}

function PriorInformation({ view, study, place }: { view: View; study: StudyDetail; place: Place }) {
  const words = useWords();
  const banner = useBanner(study);
  return (
    <Information
      view={view}
      banner={banner}
      image={aboutImage(place, words)}
      spacing={spacingOf(place.file)}
      watermark=""
    />
  );
}

function CasePane({ stage }: { stage: Stage }) {
  const words = useWords();
  const one = stage.caseBeside;
  if (one === null) return null;
  return (
    <div className="pane" data-testid="beside">
      <PaneHead title={words("similarCase", { n: one.rank })} onClose={() => stage.setCaseBeside(null)} />
      <img
        className="case-large"
        src={pictureAddress(one.result, `case:${one.rank}`)}
        alt={words("similarCase", { n: one.rank })}
      />
    </div>
  );
}
