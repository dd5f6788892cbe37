/** What the viewer of a study shows: which image, which overlays, what stands beside it. Overlays are off at first. */
import { useCallback, useMemo, useRef, useState } from "react";
import type { Result, StudyDetail, StudyImage } from "../api/client";
import { pictureAddress } from "../api/queries";
import type { Box, Evidence, LabelReading, OrganRecord, ReadRecord, SimilarRecord } from "../api/records";
import type { ViewportHandle } from "../viewer/viewport";

export interface Case {
  result: string;
  rank: number;
}

/** One picture of a study: an image, or one frame of a file that holds several. */
export interface Place {
  /** The file, which carries measurements. */
  file: StudyImage;
  /** What results belong to: the frame where it was read, else the file. */
  image: StudyImage;
  frame: number;
  /** Whether the picture is one that readers are asked about, as an image of its own. */
  readable: boolean;
}

export interface Stage {
  study: StudyDetail;
  /** All pictures in order: the wheel runs through them. */
  places: readonly Place[];
  place: Place | undefined;
  index: number;
  image: StudyImage | undefined;
  setIndex: (index: number) => void;
  heat: Heat | null;
  setHeat: (heat: Heat | null) => void;
  masks: boolean;
  setMasks: (on: boolean) => void;
  opacity: number;
  setOpacity: (opacity: number) => void;
  marked: number | null;
  caseBeside: Case | null;
  setCaseBeside: (one: Case | null) => void;
  viewport: React.RefObject<ViewportHandle | null>;
  /** Go to the image of a result, show its heat map and bring one of its boxes to the middle. */
  showEvidence: (result: string, label: string, box?: number) => void;
  goToImage: (number: number, frame?: number) => void;
}

export interface Heat {
  result: string;
  label: string;
}

/** All pictures of a study in order; frames that were read stand for themselves, others for their file. */
export function placesOf(study: StudyDetail): Place[] {
  const files = study.image_list.filter((one) => one.frame_of === null || one.frame_of === undefined);
  return files.flatMap((file) => {
    if (file.frames === 1) return [{ file, image: file, frame: 1, readable: true }];
    const read = new Map(
      study.image_list.filter((one) => one.frame_of === file.id).map((one) => [one.frame, one]),
    );
    return Array.from({ length: file.frames }, (_, at) => {
      const image = read.get(at + 1);
      return { file, image: image ?? file, frame: at + 1, readable: image !== undefined };
    });
  });
}

/** Where a file is first looked at: its middle one of the frames that are read. */
export function startOf(places: readonly Place[], file: StudyImage | undefined): number {
  const own = places.flatMap((one, at) => (one.file === file && one.readable ? [at] : []));
  return (
    own[Math.floor(own.length / 2)] ??
    Math.max(
      0,
      places.findIndex((one) => one.file === file),
    )
  );
}

export const addressOf = ({ file, frame }: Place): string =>
  file.frames > 1 ? `/api/v1/images/${file.id}/frames/${frame}/dicom` : `/api/v1/images/${file.id}/dicom`;

/** The small picture that was made when a reader read this one. */
export function previewOf(place: Place | undefined): string | undefined {
  const read = latest(place?.image, "read");
  return read?.pictures.includes("film") ? pictureAddress(read.id, "film") : undefined;
}

export function useStage(study: StudyDetail): Stage {
  const places = useMemo(() => placesOf(study), [study]);
  const [index, setIndex] = useState(() => startOf(places, places[0]?.file));
  const [heat, setHeat] = useState<Heat | null>(null);
  const [masks, setMasks] = useState(false);
  const [opacity, setOpacity] = useState(0.6);
  const [marked, setMarked] = useState<number | null>(null);
  const [caseBeside, setCaseBeside] = useState<Case | null>(null);
  const viewport = useRef<ViewportHandle | null>(null);
  const chooseHeat = useCallback((chosen: Heat | null) => {
    setHeat(chosen);
    setMarked(null);
  }, []);
  const showEvidence = useCallback(
    (result: string, label: string, box?: number) => {
      const at = places.findIndex(({ image }) => image.results.some((one) => one.id === result));
      if (at < 0) return;
      setIndex(at);
      setHeat({ result, label });
      setMarked(box ?? null);
      const boxes = evidenceOf(study, { result, label })?.boxes ?? [];
      const target = box === undefined ? undefined : boxes[box];
      if (target) setTimeout(() => viewport.current?.lookAt(target), 0);
    },
    [study, places],
  );
  const goToImage = useCallback(
    (number: number, frame?: number) => {
      const file = places.find((one) => one.file.number === number)?.file;
      const at = places.findIndex((one) => one.file === file && one.frame === frame);
      if (file) setIndex(at >= 0 ? at : startOf(places, file));
    },
    [places],
  );
  return useMemo(
    () => ({
      study,
      places,
      place: places[index],
      index,
      image: places[index]?.image,
      setIndex,
      heat,
      setHeat: chooseHeat,
      masks,
      setMasks,
      opacity,
      setOpacity,
      marked,
      caseBeside,
      setCaseBeside,
      viewport,
      showEvidence,
      goToImage,
    }),
    [study, places, index, heat, chooseHeat, masks, opacity, marked, caseBeside, showEvidence, goToImage],
  );
}

export function latest(image: StudyImage | undefined, kind: string): Result | undefined {
  return image?.results.filter((one) => one.kind === kind).at(-1);
}

export const readOf = (result: Result): ReadRecord => result.record as unknown as ReadRecord;
export const organsOf = (result: Result): OrganRecord => result.record as unknown as OrganRecord;
export const similarOf = (result: Result): SimilarRecord => result.record as unknown as SimilarRecord;

/** The evidence of a label in a read or in an explanation that was asked for. */
export function evidenceOf(study: StudyDetail, heat: Heat | null): Evidence | null {
  if (heat === null) return null;
  const result = study.image_list.flatMap((image) => image.results).find((one) => one.id === heat.result);
  if (!result) return null;
  if (result.kind === "explain") return (result.record as unknown as { evidence: Evidence }).evidence;
  return readOf(result).labels.find((one) => one.label === heat.label)?.evidence ?? null;
}

export function boxesOf(study: StudyDetail, heat: Heat | null): Box[] {
  return evidenceOf(study, heat)?.boxes ?? [];
}

/** Where a heat map of one label of an image is: in the read itself, else in the newest explanation of that label. */
export function heatOf(image: StudyImage | undefined, read: Result, reading: LabelReading): Heat | null {
  const name = `heat:${reading.label}`;
  if (read.pictures.includes(name)) return { result: read.id, label: reading.label };
  const made = image?.results.filter((one) => one.kind === "explain" && one.pictures.includes(name)).at(-1);
  return made ? { result: made.id, label: reading.label } : null;
}
