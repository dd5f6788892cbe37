/** What lies over the image: heat map, organ masks, boxes, letters of orientation, scale bar, watermark. */
import { useEffect, useRef, useState } from "react";
import type { Box } from "../api/records";
import { fixed, useWords } from "../i18n";
import { cornersOf, edgeLetters, scaleBar } from "./geometry";
import type { View } from "./viewport";

export interface Layer {
  address: string;
  kind: "heat" | "mask";
  colour: number;
  name: string;
}

/** Colours of masks: apart in hue and in lightness, for eyes that do not tell all hues. */
export const MASK_COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442"];

interface Props {
  view: View;
  layers: readonly Layer[];
  opacity: number;
  rows: number;
  columns: number;
}

export function Layers({ view, layers, opacity, rows, columns }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const pictures = usePictures(layers);
  useEffect(() => {
    const place = canvas.current;
    const context = place?.getContext("2d");
    if (!place || !context) return;
    const ratio = window.devicePixelRatio || 1;
    place.width = Math.round(view.width * ratio);
    place.height = Math.round(view.height * ratio);
    const { a, b, c, d, e, f } = view.matrix;
    context.setTransform(a * ratio, b * ratio, c * ratio, d * ratio, e * ratio, f * ratio);
    context.globalAlpha = opacity;
    context.imageSmoothingQuality = "high";
    for (const picture of pictures) context.drawImage(picture, 0, 0, columns, rows);
  }, [view, pictures, opacity, rows, columns]);
  return (
    <canvas
      ref={canvas}
      className="layer"
      data-testid="layers"
      data-shown={pictures.length}
      aria-hidden="true"
    />
  );
}

function usePictures(layers: readonly Layer[]): CanvasImageSource[] {
  const [pictures, setPictures] = useState<CanvasImageSource[]>([]);
  const wanted = layers.map((one) => `${one.address} ${one.kind} ${one.colour}`).join("\n");
  useEffect(() => {
    let current = true;
    Promise.all(layers.map(loadLayer))
      .then((loaded) => current && setPictures(loaded))
      .catch(() => current && setPictures([]));
    return () => {
      current = false;
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- `wanted` says all of `layers` that matters
  }, [wanted]);
  return layers.length === 0 ? [] : pictures;
}

async function loadLayer(layer: Layer): Promise<CanvasImageSource> {
  const image = new Image();
  image.src = layer.address;
  await image.decode();
  return layer.kind === "mask"
    ? tinted(image, MASK_COLOURS[layer.colour % MASK_COLOURS.length] ?? "#fff")
    : image;
}

/** A mask in black and white as a colour: faint inside, full along its edge. */
function tinted(image: HTMLImageElement, colour: string): HTMLCanvasElement {
  const { naturalWidth: width, naturalHeight: height } = image;
  const target = document.createElement("canvas");
  target.width = width;
  target.height = height;
  const context = target.getContext("2d", { willReadFrequently: true });
  if (!context) return target;
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, width, height);
  const inside = new Uint8Array(width * height);
  for (let i = 0; i < inside.length; i++) inside[i] = (data.data[4 * i] as number) > 127 ? 1 : 0;
  const rgb = [1, 3, 5].map((from) => Number.parseInt(colour.slice(from, from + 2), 16));
  const reach = Math.max(1, Math.round(width / 400));
  for (let i = 0; i < inside.length; i++) {
    const edge =
      inside[i] === 1 &&
      (!inside[i - reach] || !inside[i + reach] || !inside[i - reach * width] || !inside[i + reach * width]);
    data.data.set([...rgb, inside[i] ? (edge ? 255 : 90) : 0], 4 * i);
  }
  context.putImageData(data, 0, 0);
  return target;
}

export function Boxes({ view, boxes, marked }: { view: View; boxes: readonly Box[]; marked: number | null }) {
  return (
    <svg className="layer" aria-hidden="true">
      {boxes.map((box, number) => (
        <polygon
          key={`${box.x} ${box.y}`}
          className={number === marked ? "box marked" : "box"}
          points={cornersOf(view.matrix, box)
            .map(([x, y]) => `${x},${y}`)
            .join(" ")}
        />
      ))}
    </svg>
  );
}

interface InformationProps {
  view: View;
  banner: readonly string[];
  image: readonly string[];
  spacing: readonly [number, number] | null;
  watermark: string;
}

export function Information({ view, banner, image, spacing, watermark }: InformationProps) {
  const words = useWords();
  const letters = view.orientation === null ? null : edgeLetters(view.matrix, view.orientation);
  const { lower, upper } = view.window;
  const digits = upper - lower < 10 ? 2 : 0;
  return (
    <div className="information">
      <Lines className="corner upper-left" lines={banner} />
      <Lines className="corner upper-right" lines={image} />
      <Lines
        className="corner lower-left"
        lines={[
          `W ${fixed(upper - lower, digits, words.language)}  L ${fixed((upper + lower) / 2, digits, words.language)}`,
          `${words("zoom")} ${fixed(view.zoom, 2, words.language)}×${view.inverted !== view.cameInverted ? `  ${words("inverted")}` : ""}`,
          ...(letters === null ? [words("noOrientation")] : []),
        ]}
      />
      <ScaleBar view={view} spacing={spacing} />
      {letters !== null && (
        <>
          <span className="letter left">{letters.left}</span>
          <span className="letter right">{letters.right}</span>
          <span className="letter up">{letters.up}</span>
          <span className="letter down">{letters.down}</span>
        </>
      )}
      {watermark && (
        <p className="watermark" data-testid="watermark">
          {watermark}
        </p>
      )}
    </div>
  );
}

function Lines({ className, lines }: { className: string; lines: readonly string[] }) {
  return (
    <div className={className}>
      {lines.filter(Boolean).map((line) => (
        <span key={line}>{line}</span>
      ))}
    </div>
  );
}

function ScaleBar({ view, spacing }: { view: View; spacing: readonly [number, number] | null }) {
  const words = useWords();
  if (spacing === null) return <div className="scale-bar">{words("noScale")}</div>;
  const bar = scaleBar(view.matrix, spacing[1], Math.min(180, view.width / 4));
  if (bar === null) return null;
  return (
    <div className="scale-bar">
      <span className="num">{bar.mm >= 10 ? `${bar.mm / 10} cm` : `${bar.mm} mm`}</span>
      <svg width={bar.pixels + 2} height="8" aria-hidden="true">
        <path d={`M1 1 V7 H${bar.pixels + 1} V1`} />
      </svg>
    </div>
  );
}
