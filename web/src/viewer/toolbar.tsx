/** What can be done to the picture, each with its key; and the words that belong to an overlay. */
import {
  Contrast,
  Flame,
  Layers as LayersIcon,
  Move,
  RotateCcw,
  RotateCw,
  Ruler,
  SunMedium,
  TriangleRight,
  ZoomIn,
} from "lucide-react";
import type { Result } from "../api/client";
import { percent, useWords } from "../i18n";
import { evidenceOf, latest, organsOf, readOf, type Stage } from "../study/stage";
import { useVerdict } from "../study/trust";
import { IconButton } from "../ui/parts";
import type { LeftTool } from "./engine";
import type { Measuring } from "./marks";
import { MASK_COLOURS } from "./overlay";
import type { Preset } from "./presets";

interface Props {
  stage: Stage;
  tool: LeftTool;
  onTool: (tool: LeftTool) => void;
  measuring: Measuring;
  onMeasuring: ((measuring: Measuring) => void) | null;
  presets: readonly Preset[];
  onHeat: () => void;
}

export function Toolbar({ stage, tool, onTool, measuring, onMeasuring, presets, onHeat }: Props) {
  const words = useWords();
  const { viewport } = stage;
  const left = (one: LeftTool) => measuring === null && tool === one;
  const measure = (one: "length" | "angle") => onMeasuring?.(measuring === one ? null : one);
  return (
    <div className="toolbar" role="toolbar" aria-label={words("viewerTools")}>
      <div className="tool-group">
        <IconButton label={words("windowTool")} pressed={left("window")} onClick={() => onTool("window")}>
          <SunMedium size={17} />
        </IconButton>
        <IconButton label={words("panTool")} pressed={left("pan")} onClick={() => onTool("pan")}>
          <Move size={17} />
        </IconButton>
        <IconButton label={words("zoomTool")} pressed={left("zoom")} onClick={() => onTool("zoom")}>
          <ZoomIn size={17} />
        </IconButton>
      </div>
      <div className="tool-group">
        <IconButton
          label={words("length")}
          shortcut="l"
          pressed={measuring === "length"}
          disabled={onMeasuring === null}
          onClick={() => measure("length")}
        >
          <Ruler size={17} />
        </IconButton>
        <IconButton
          label={words("angle")}
          shortcut="a"
          pressed={measuring === "angle"}
          disabled={onMeasuring === null}
          onClick={() => measure("angle")}
        >
          <TriangleRight size={17} />
        </IconButton>
      </div>
      <div className="tool-group">
        <IconButton label={words("invert")} shortcut="i" onClick={() => viewport.current?.invert()}>
          <Contrast size={17} />
        </IconButton>
        <IconButton label={words("rotate")} shortcut="t" onClick={() => viewport.current?.rotate()}>
          <RotateCw size={17} />
        </IconButton>
        <IconButton label={words("reset")} shortcut="r" onClick={() => viewport.current?.reset()}>
          <RotateCcw size={17} />
        </IconButton>
      </div>
      <select
        className="preset"
        aria-label={words("windowPreset")}
        value=""
        onChange={(event) => viewport.current?.preset(Number(event.target.value))}
      >
        <option value="" disabled>
          {words("windowPreset")}
        </option>
        {presets.map((one, number) => (
          <option key={one.name} value={number}>
            {`${number + 1}  ${words(one.name)}`}
          </option>
        ))}
      </select>
      <div className="tool-group overlays">
        <IconButton label={words("heatMap")} shortcut="h" pressed={stage.heat !== null} onClick={onHeat}>
          <Flame size={17} />
        </IconButton>
        <IconButton
          label={words("organMasks")}
          shortcut="m"
          pressed={stage.masks}
          onClick={() => stage.setMasks(!stage.masks)}
        >
          <LayersIcon size={17} />
        </IconButton>
        <label className="opacity">
          <span>{words("opacity")}</span>
          <input
            type="range"
            min={0}
            max={1}
            step={0.05}
            value={stage.opacity}
            aria-label={words("opacity")}
            onChange={(event) => stage.setOpacity(Number(event.target.value))}
          />
          <span className="num">{percent(stage.opacity, words.language)}</span>
        </label>
      </div>
      {measuring !== null && (
        <p className="hint" role="status">
          {words(measuring === "length" ? "drawLength" : "drawAngle")}
        </p>
      )}
    </div>
  );
}

/** The status of the explanation and its limits, beside the overlay that they belong to. */
export function Legend({ stage }: { stage: Stage }) {
  const words = useWords();
  const evidence = evidenceOf(stage.study, stage.heat);
  const organs = latest(stage.image, "segment");
  const read = latest(stage.image, "read");
  if (evidence === null && !stage.masks)
    return <footer className="legend dim">{words("overlaysOff")}</footer>;
  return (
    <footer className="legend" data-testid="legend">
      {evidence !== null && (
        <div>
          <strong>{words("heatMapOf", { label: evidence.target, method: evidence.method })}</strong>
          <span className="heat-scale" aria-hidden="true" />
          <span className="dim small">{words("heatScale")}</span>
          {read && <Sanity key={read.id} read={read} method={evidence.method} />}
          <details>
            <summary>
              {words("howFarToTrustIt", { n: evidence.limits.length, status: evidence.status })}
            </summary>
            <ul className="reasons">
              {evidence.limits.map((limit) => (
                <li key={limit}>{limit}</li>
              ))}
            </ul>
          </details>
        </div>
      )}
      {stage.masks && (
        <div>
          {organs ? (
            organsOf(organs).organs.map((one, number) => (
              <span key={one.organ} className="organ">
                <svg width="10" height="10" aria-hidden="true">
                  <rect width="10" height="10" rx="2" fill={MASK_COLOURS[number % MASK_COLOURS.length]} />
                </svg>
                {one.organ.replaceAll("_", " ")}
                {one.flags.length > 0 && <span className="dim small">{one.flags.join(", ")}</span>}
              </span>
            ))
          ) : (
            <span className="dim small">{words("noMasksYet")}</span>
          )}
        </div>
      )}
    </footer>
  );
}

/** Whether this method passed the randomisation test on this reader, as its audit found. */
function Sanity({ read, method }: { read: Result; method: string }) {
  const words = useWords();
  const found = useVerdict(readOf(read)).audit?.heat_maps?.[method];
  return <span className="dim small">{words("sanity", { found: found ?? words("notTested") })}</span>;
}
