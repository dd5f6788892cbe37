"""Images in, organs out: masks, how sure the network is of each, what is odd about it, and its sizes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wetread.reading.feed import Feed, ReadFailure, Source
from wetread.reading.mask_quality import clean_mask, confidence, oddities, quality_flags
from wetread.reading.measures import ORGANS, is_lateral, measure_organs
from wetread.types import Box, Image, ImageFacts, Measure, ModelIdentity, Record, Step

if TYPE_CHECKING:
    from wetread.models.organs import Segmenter

__all__ = ["OrganFinding", "OrganReading", "Segmented", "cleaned", "segment_image", "segment_images", "sizes_of"]

Mask = NDArray[np.bool_]
_LUNGS = ("lungs", "lung_left", "lung_right")


class OrganFinding(Record):
    """One organ of one image.

    ``confidence`` (0-1) is the overlap of probability and mask, not calibrated. ``flags`` are what is odd about the
    mask as the network drew it. ``changed_px``: pixels that cleaning (strays removed, small holes filled) changed.
    ``box`` is in pixels of the original image; None for an empty mask.
    """

    organ: str
    area_px: int
    image_share: float
    confidence: float
    flags: tuple[str, ...] = ()
    changed_px: int = 0
    box: Box | None = None
    files: dict[str, str] = Field(default_factory=dict)


class OrganReading(Record):
    """The organs of one image, their sizes in real units where the file states a spacing, and who found them."""

    schema_version: str = "1"
    image: ImageFacts
    applied: tuple[Step, ...]
    organs: tuple[OrganFinding, ...]
    measures: tuple[Measure, ...]
    model: ModelIdentity
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()
    disclaimer: str = "Research use only. Not a diagnosis."

    @property
    def flags(self) -> tuple[str, ...]:
        """All flags of all organs but *touches border*, which true masks have too; each as ``organ: flag``."""
        return tuple(f"{one.organ}: {flag}" for one in self.organs for flag in oddities(one.flags))


@dataclass(frozen=True, slots=True)
class Segmented:
    """One image with its masks, bool (rows, columns) by organ, after cleaning."""

    source: Source
    image: Image
    reading: OrganReading
    masks: dict[str, Mask]


def segment_image(segmenter: Segmenter, image: Image, *, clean: bool = True) -> tuple[OrganReading, dict[str, Mask]]:
    """Find the organs of one image; ``clean`` removes strays and fills small holes, and says how many pixels.

    Raises:
        WetreadError: the network gave no finite numbers.
    """
    begin = time.perf_counter()
    maps = segmenter.maps(image)
    found_ms = (time.perf_counter() - begin) * 1e3
    lateral = is_lateral(image.facts.view)
    masks: dict[str, Mask] = {}
    findings = []
    for organ, probability in maps.items():
        raw = probability >= 0.5
        masks[organ] = cleaned(organ, raw) if clean else raw
        findings.append(_finding(organ, probability, raw, masks[organ], lateral=lateral))
    measures = sizes_of(masks, image.facts)
    timings = {"find": found_ms, "measure": (time.perf_counter() - begin) * 1e3 - found_ms}
    reading = OrganReading(
        image=image.facts,
        applied=image.applied,
        organs=tuple(findings),
        measures=measures,
        model=segmenter.card.identity,
        timings_ms={stage: round(value, 2) for stage, value in timings.items()},
    )
    return reading, masks


def cleaned(organ: str, raw: Mask) -> Mask:
    """Remove strays and fill small holes of a mask; organs without measures stay as they are."""
    return clean_mask(organ, raw) if organ in ORGANS and raw.any() else raw


def sizes_of(masks: Mapping[str, Mask], facts: ImageFacts) -> tuple[Measure, ...]:
    """Sizes of the organs that have measures, in the units that the file's spacing allows."""
    known = {organ: mask for organ, mask in masks.items() if organ in ORGANS}
    return measure_organs(known, facts.spacing_mm, view=facts.view) if known else ()


def _finding(organ: str, probability: NDArray[np.float32], raw: Mask, kept: Mask, *, lateral: bool) -> OrganFinding:
    flags: tuple[str, ...] = () if raw.any() else ("empty",)
    if organ in ORGANS:
        flags = quality_flags(organ, raw, expected_components=1 if lateral and organ in _LUNGS else None)
    return OrganFinding(
        organ=organ,
        area_px=int(kept.sum()),
        image_share=round(float(kept.mean()), 4),
        confidence=round(confidence(probability, kept), 4),
        flags=flags,
        changed_px=int((raw != kept).sum()),
        box=_box(kept),
    )


def _box(mask: Mask) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return Box(x=left, y=top, width=int(columns[-1]) - left + 1, height=int(rows[-1]) - top + 1)


def segment_images(
    segmenter: Segmenter, sources: Iterable[Source], *, clean: bool = True
) -> Iterator[Segmented | ReadFailure]:
    """Find the organs of files in order; one that cannot be read gives a :class:`ReadFailure` in its place."""
    for item in Feed(sources):
        if isinstance(item, ReadFailure):
            yield item
            continue
        reading, masks = segment_image(segmenter, item.image, clean=clean)
        timings = {"load": round(item.load_ms, 2), **reading.timings_ms}
        yield Segmented(item.source, item.image, reading.model_copy(update={"timings_ms": timings}), masks)
