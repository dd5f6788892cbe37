/** Measurements: drawn with the mouse, stored by the service, which computes their values. */
import { type MouseEvent, useState } from "react";
import type { Annotation } from "../api/client";
import { fixed, useWords } from "../i18n";
import { angleOf, lengthOf, type Matrix, type Point, toImage, toScreen } from "./geometry";
import type { View } from "./viewport";

export type Measuring = "length" | "angle" | null;

const POINTS = { length: 2, angle: 3 } as const;

interface Props {
  view: View;
  annotations: readonly Annotation[];
  measuring: Measuring;
  spacing: readonly [number, number] | null;
  onDrawn: (kind: "length" | "angle", points: Point[]) => void;
}

export function Marks({ view, annotations, measuring, spacing, onDrawn }: Props) {
  const words = useWords();
  const [points, setPoints] = useState<Point[]>([]);
  const [pointer, setPointer] = useState<Point | null>(null);
  const at = (event: MouseEvent<SVGSVGElement>): Point => {
    const frame = event.currentTarget.getBoundingClientRect();
    return toImage(view.matrix, [event.clientX - frame.left, event.clientY - frame.top]);
  };
  const press = (event: MouseEvent<SVGSVGElement>) => {
    if (measuring === null || event.button !== 0) return;
    event.stopPropagation();
    const drawn = [...points, at(event)];
    if (drawn.length < POINTS[measuring]) {
      setPoints(drawn);
      return;
    }
    setPoints([]);
    onDrawn(measuring, drawn);
  };
  const growing = pointer === null ? points : [...points, pointer];
  return (
    // drawing is with the mouse; the list of measurements is beside
    <svg
      className={measuring === null ? "layer" : "layer drawing"}
      data-testid="marks"
      onMouseDown={press}
      onMouseMove={(event) => measuring !== null && setPointer(at(event))}
      onMouseLeave={() => setPointer(null)}
    >
      <title>{words("measurements")}</title>
      {annotations.map((one) => (
        <Mark
          key={one.id}
          matrix={view.matrix}
          points={one.points as Point[]}
          label={valueOf(one, words.language)}
        />
      ))}
      {measuring !== null && growing.length > 0 && (
        <Mark
          matrix={view.matrix}
          points={growing}
          label={growing.length > 1 ? preview(measuring, growing, spacing, words.language) : ""}
        />
      )}
    </svg>
  );
}

function Mark({ matrix, points, label }: { matrix: Matrix; points: readonly Point[]; label: string }) {
  const placed = points.map((one) => toScreen(matrix, one));
  const [x = 0, y = 0] = placed[placed.length === 3 ? 1 : placed.length - 1] ?? [];
  return (
    <g className="mark-drawn">
      <polyline points={placed.map((one) => one.join(",")).join(" ")} />
      {placed.map(([cx, cy]) => (
        <circle key={`${cx} ${cy}`} cx={cx} cy={cy} r={3} />
      ))}
      <text x={x + 10} y={y - 8}>
        {label}
      </text>
    </g>
  );
}

export function valueOf(one: Annotation, language: "en" | "es"): string {
  if (one.value === null) return one.text;
  return one.unit === "deg"
    ? `${fixed(one.value, 1, language)}°`
    : `${fixed(one.value, 1, language)} ${one.unit}`;
}

function preview(
  kind: "length" | "angle",
  points: readonly Point[],
  spacing: readonly [number, number] | null,
  language: "en" | "es",
): string {
  if (kind === "angle") return points.length === 3 ? `${fixed(angleOf(points, spacing), 1, language)}°` : "";
  const { value, unit } = lengthOf(points, spacing);
  return `${fixed(value, 1, language)} ${unit}`;
}
