/**
 * One viewport of cornerstone3D: shows a stack, tells where its pixels lie, and does what the toolbar asks.
 * Decided here: everything drawn over the image hangs on the matrix of `geometry.ts`, which follows each rendering.
 */
import { Enums, type Types, utilities } from "@cornerstonejs/core";
import { type ReactNode, type Ref, useEffect, useId, useImperativeHandle, useRef, useState } from "react";
import type { Box } from "../api/records";
import { useWords } from "../i18n";
import { Problem, Spinner } from "../ui/parts";
import { closeViewport, headerOf, imageIdOf, openViewport, resizeAll, takeEarly } from "./engine";
import { type Matrix, matrixOf, orientationOf, sameMatrix } from "./geometry";
import { Preview } from "./preview";
import { type Preset, presetsFor, type Range } from "./presets";

/** A mark in the browser's own timeline, for the benchmark. */
const FIRST_IMAGE = "wetread-first-image";

/** A picture of the stack: where its DICOM file is, and what kind it is. */
export interface ShownImage {
  address: string;
  modality: string;
  /** Address of a small picture to look at until the image is there. */
  preview?: string | undefined;
}

/** What is on the screen now. */
export interface View {
  matrix: Matrix;
  width: number;
  height: number;
  window: Range;
  zoom: number;
  inverted: boolean;
  orientation: { row: string; column: string } | null;
  presets: Preset[];
  /** Whether the image came inverted, as MONOCHROME1 does. */
  cameInverted: boolean;
  firstImageMs: number;
}

export interface ViewportHandle {
  invert: () => void;
  rotate: () => void;
  reset: () => void;
  preset: (number: number) => void;
  window: (range: Range) => void;
  zoomBy: (factor: number) => void;
  lookAt: (box: Box) => void;
  step: (by: number) => void;
}

interface Props {
  images: readonly ShownImage[];
  index: number;
  onIndex: (index: number) => void;
  handle?: Ref<ViewportHandle>;
  label: string;
  children?: (view: View) => ReactNode;
}

export function Viewport({ images, index, onIndex, handle, label, children }: Props) {
  const words = useWords();
  const id = useId();
  const element = useRef<HTMLDivElement>(null);
  const viewport = useRef<Types.IStackViewport | null>(null);
  const [view, setView] = useState<View | null>(null);
  const [error, setError] = useState<unknown>(null);
  const shown = useRef({ images, onIndex });
  shown.current = { images, onIndex };
  const stack = images.map((one) => one.address).join(" ");
  const begun = useRef(0);

  useEffect(() => {
    const place = element.current;
    if (place === null) return;
    const opened = openViewport(id, place);
    viewport.current = opened;
    let last = "";
    const redraw = () => {
      const image = opened.getCurrentImageId();
      const another = image !== last;
      last = image;
      setView((before) => viewOf(opened, shown.current.images, another ? null : before, begun.current));
    };
    const moved = () => {
      const { images: listed, onIndex: tell } = shown.current;
      const at = opened.getCurrentImageIdIndex(); // an event of the stack before would tell of another image
      if (opened.getCurrentImageId() === imageIdOf(listed[at]?.address ?? "")) tell(at);
    };
    place.addEventListener(Enums.Events.IMAGE_RENDERED, redraw);
    place.addEventListener(Enums.Events.STACK_NEW_IMAGE, moved);
    const observer = new ResizeObserver(() => resizeAll());
    observer.observe(place);
    return () => {
      observer.disconnect();
      place.removeEventListener(Enums.Events.IMAGE_RENDERED, redraw);
      place.removeEventListener(Enums.Events.STACK_NEW_IMAGE, moved);
      viewport.current = null;
      closeViewport(id);
    };
  }, [id]);
  useEffect(() => {
    const opened = viewport.current;
    if (opened === null || stack === "") return;
    setError(null);
    setView(null);
    begun.current = performance.now();
    const addresses = stack.split(" ");
    const at = Math.min(index, addresses.length - 1);
    takeEarly(addresses[at] ?? "")
      .then(() => (viewport.current === opened ? opened.setStack(addresses.map(imageIdOf), at) : undefined))
      .then(() => viewport.current === opened && opened.render())
      .catch(setError);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a new stack only where the images differ
  }, [stack]);

  useEffect(() => {
    const opened = viewport.current;
    if (opened === null || opened.getImageIds().length !== shown.current.images.length) return;
    if (opened.getCurrentImageIdIndex() === index) return;
    opened.setImageIdIndex(index).catch(setError);
  }, [index]);

  const latest = useRef<View | null>(null);
  latest.current = view;
  useImperativeHandle(handle, () =>
    actions(
      viewport,
      () => latest.current?.presets ?? [],
      () => {
        const [first] = latest.current?.presets ?? [];
        return first && latest.current
          ? { window: first.range, inverted: latest.current.cameInverted }
          : null;
      },
    ),
  );

  return (
    <div
      className="viewport"
      data-testid="viewport"
      data-ready={view !== null}
      data-first-ms={view?.firstImageMs}
    >
      {/* arrows and keys act on the image that has the focus */}
      <div
        ref={element}
        className="viewport-image"
        role="img"
        aria-label={label}
        tabIndex={0}
        onContextMenu={(e) => e.preventDefault()}
      />
      {view !== null && children?.(view)}
      {view === null &&
        error === null &&
        (images[index]?.preview ? (
          <Preview address={images[index].preview} />
        ) : (
          <div className="viewport-wait">
            <Spinner label={words("loadingImage")} />
          </div>
        ))}
      {error !== null && (
        <div className="viewport-wait">
          <Problem error={error} />
          <p className="dim">{words("imageNotShown")}</p>
        </div>
      )}
    </div>
  );
}

function viewOf(
  viewport: Types.IStackViewport,
  images: readonly ShownImage[],
  before: View | null,
  begun: number,
): View | null {
  const matrix = currentMatrix(viewport);
  const { voiRange, invert } = viewport.getProperties();
  const window = voiRange ?? fileWindow(viewport) ?? wholeRange(viewport); // null where no window was set yet
  if (matrix === null || window === null) return before;
  const now = {
    window,
    inverted: invert === true,
    zoom: viewport.getZoom(),
    width: viewport.element.clientWidth,
    height: viewport.element.clientHeight,
  };
  if (before === null) return { matrix, ...now, ...firstView(viewport, images, now, begun) };
  const same = (Object.keys(now) as (keyof typeof now)[]).every(
    (one) => JSON.stringify(before[one]) === JSON.stringify(now[one]),
  );
  if (same && sameMatrix(before.matrix, matrix)) return before;
  return { ...before, matrix, ...now, orientation: orientationIn(viewport) };
}

/** What is decided when an image is first shown, and kept while it is looked at. */
function firstView(
  viewport: Types.IStackViewport,
  images: readonly ShownImage[],
  now: Pick<View, "window" | "inverted">,
  begun: number,
) {
  const image = images[viewport.getCurrentImageIdIndex()];
  if (performance.getEntriesByName(FIRST_IMAGE).length === 0) performance.mark(FIRST_IMAGE);
  return {
    orientation: orientationIn(viewport),
    presets: presetsOf(viewport, image?.modality ?? "", fileWindow(viewport) ?? now.window),
    cameInverted: viewport.getCornerstoneImage()?.invert ?? now.inverted,
    firstImageMs: Math.round(performance.now() - begun),
  };
}

/** The first window that the file states, Window Center (0028,1050) and Width (0028,1051). */
function fileWindow(viewport: Types.IStackViewport): Range | null {
  const { windowCenter, windowWidth } = viewport.getCornerstoneImage() ?? {};
  const centre = Array.isArray(windowCenter) ? windowCenter[0] : windowCenter;
  const width = Array.isArray(windowWidth) ? windowWidth[0] : windowWidth;
  if (centre === undefined || !width) return null;
  return utilities.windowLevel.toLowHighRange(width, centre);
}

/** From the least value of the image to the greatest. */
function wholeRange(viewport: Types.IStackViewport): Range | null {
  const image = viewport.getCornerstoneImage();
  return image
    ? { lower: image.minPixelValue, upper: Math.max(image.maxPixelValue, image.minPixelValue + 1) }
    : null;
}

function orientationIn(viewport: Types.IStackViewport): View["orientation"] {
  const header = headerOf(viewport.getCurrentImageId());
  return orientationOf(header.PatientOrientation, header.ImageOrientationPatient);
}

function currentMatrix(viewport: Types.IStackViewport): Matrix | null {
  const data = viewport.getImageData()?.imageData as
    { indexToWorld: (index: Types.Point3) => Types.Point3 } | undefined;
  if (!data) return null;
  const place = (x: number, y: number) =>
    viewport.worldToCanvas([...data.indexToWorld([x - 0.5, y - 0.5, 0])] as unknown as Types.Point3);
  const matrix = matrixOf(place(0, 0), place(1, 0), place(0, 1));
  return Object.values(matrix).every(Number.isFinite) ? matrix : null;
}

function presetsOf(viewport: Types.IStackViewport, modality: string, file: Range): Preset[] {
  const image = viewport.getCornerstoneImage();
  const values = image?.getPixelData();
  if (!image || !values || image.color) return [{ name: "presetFile", range: file }];
  const scaled = image.preScale?.scaled === true;
  const { slope, intercept } = image;
  const presets = presetsFor(modality, file, values);
  if (scaled || (slope === 1 && intercept === 0) || modality === "CT") return presets;
  const modalityValue = (value: number) => value * slope + intercept;
  return presets.map((one, number) =>
    number === 0
      ? one
      : { ...one, range: { lower: modalityValue(one.range.lower), upper: modalityValue(one.range.upper) } },
  );
}

function actions(
  current: { current: Types.IStackViewport | null },
  presets: () => Preset[],
  start: () => { window: Range; inverted: boolean } | null,
): ViewportHandle {
  const act = (what: (viewport: Types.IStackViewport) => void) => () => {
    if (current.current === null) return;
    what(current.current);
    current.current.render();
  };
  return {
    invert: act((viewport) => viewport.setProperties({ invert: !viewport.getProperties().invert })),
    rotate: act((viewport) => {
      const { rotation = 0 } = viewport.getViewPresentation();
      viewport.setViewPresentation({ rotation: (rotation + 90) % 360 });
    }),
    reset: act((viewport) => {
      const first = start();
      if (first) viewport.setProperties({ voiRange: first.window, invert: first.inverted });
      viewport.setViewPresentation({ rotation: 0 });
      viewport.resetCamera({ resetPan: true, resetZoom: true });
    }),
    preset: (number) => {
      const chosen = presets()[number];
      if (chosen) act((viewport) => viewport.setProperties({ voiRange: chosen.range }))();
    },
    window: (range) => act((viewport) => viewport.setProperties({ voiRange: range }))(),
    zoomBy: (factor) => act((viewport) => viewport.setZoom(viewport.getZoom() * factor))(),
    lookAt: (box) => act((viewport) => centreOn(viewport, box))(),
    step: (by) => current.current?.scroll(by),
  };
}

/** Bring a rectangle of the image to the middle, with as much again around it; never smaller than the whole image. */
function centreOn(viewport: Types.IStackViewport, box: Box): void {
  viewport.resetCamera({ resetPan: true, resetZoom: true });
  const matrix = currentMatrix(viewport);
  if (matrix === null) return;
  const { clientWidth: width, clientHeight: height } = viewport.element;
  const scale = Math.hypot(matrix.a, matrix.b);
  const wanted = Math.min(width / (2.2 * box.width * scale), height / (2.2 * box.height * scale));
  const factor = Math.max(1, Math.min(4, wanted));
  const x = box.x + box.width / 2;
  const y = box.y + box.height / 2;
  const [sx, sy] = [matrix.a * x + matrix.c * y + matrix.e, matrix.b * x + matrix.d * y + matrix.f];
  viewport.setZoom(factor);
  viewport.setPan([(width / 2 - sx) * factor, (height / 2 - sy) * factor]);
}
