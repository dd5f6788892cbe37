/** What the viewer of a study shows: which image, which overlays, what stands beside it. Overlays are off at first. */
import { useCallback, useMemo, useRef, useState } from "react";
import type { Result, StudyDetail, StudyImage } from "../api/client";
import type { Box, Evidence, LabelReading, OrganRecord, ReadRecord, SimilarRecord } from "../api/records";
import type { ViewportHandle } from "../viewer/viewport";

export interface Case {
  result: string;
  rank: number;
}

export interface Stage {
  study: StudyDetail;
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
  goToImage: (number: number) => void;
}

export interface Heat {
  result: string;
  label: string;
}

export function useStage(study: StudyDetail): Stage {
  const [index, setIndex] = useState(0);
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
      const at = study.image_list.findIndex((image) => image.results.some((one) => one.id === result));
      if (at < 0) return;
      setIndex(at);
      setHeat({ result, label });
      setMarked(box ?? null);
      const boxes = evidenceOf(study, { result, label })?.boxes ?? [];
      const target = box === undefined ? undefined : boxes[box];
      if (target) setTimeout(() => viewport.current?.lookAt(target), 0);
    },
    [study],
  );
  const goToImage = useCallback(
    (number: number) => {
      const at = study.image_list.findIndex((image) => image.number === number);
      if (at >= 0) setIndex(at);
    },
    [study],
  );
  return useMemo(
    () => ({
      study,
      index,
      image: study.image_list[index],
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
    [study, index, heat, chooseHeat, masks, opacity, marked, caseBeside, showEvidence, goToImage],
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
