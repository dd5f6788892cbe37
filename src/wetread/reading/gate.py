"""The gate: whether a reader was built for this image. One sentence for each reason against it.

A gated image gets no probability. Absent header fields pass; a field that contradicts does not.
The limits on appearance lie between what 968 real radiographs and pages, photographs and noise
gave (``docs/how-to/read-images.md``), none of them from a test split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from wetread.models.card import GateSpec, LookSpec, ReaderCard
from wetread.models.look import likeness
from wetread.reading.appearance import Appearance, look_at
from wetread.types import GateResult, Image, ImageFacts

__all__ = ["image_reasons", "judge"]

MAX_COLOUR = 0.10
"""Share of visibly coloured pixels: arrows of a printed figure stay below it, photographs do not."""

MIN_SIDE_PX = 64
"""Below 64 pixels a side no reader here was ever trained, and a rib is one pixel wide."""

MIN_SPREAD = 0.05
"""Real radiographs gave at least 0.19."""

MAX_PAPER = 0.97
"""One grey over nearly the whole image; real radiographs gave at most 0.89."""

MIN_STRUCTURE = 0.45
"""Real radiographs gave at least 0.71; noise gives below 0.2."""

_PAGE_PAPER, _PAGE_STROKES, _PAGE_STRUCTURE = 0.5, 0.9, 0.62
"""A page: mostly one paper, all else thin, little coarse structure. Real radiographs: at most .75 thin."""

_INVERTED = 0.4
"""Negatives of 100 films (kermany-cxr *val*) had likenesses of -.51 and less, films on their side of -.36 and more."""

_SAME_PART = {"THORAX": "CHEST", "LUNG": "CHEST", "LUNGS": "CHEST", "RIBS": "RIB"}
"""Words that Body Part Examined (0018,0015) uses for the same region (PS3.16 annex L)."""


def judge(
    card: ReaderCard, image: Image, distance: float | None = None, appearance: Appearance | None = None
) -> GateResult:
    """Decide whether the reader of ``card`` was built for ``image``.

    ``distance``: outlier score of the image's features from :meth:`Reader.distances`, None where
    it was not computed. ``appearance``: as measured before, else it is measured here.
    """
    reasons = list(image_reasons(card.gate, image, appearance))
    limit = card.gate.limit if card.gate else None
    if distance is not None and limit is not None and not distance <= limit:  # NaN is far too
        reasons.append(
            f"It is unlike the images the reader learned from: feature distance {distance:.2f}, limit {limit:.2f}."
        )
    return GateResult(passed=not reasons, reasons=tuple(reasons), distance=distance, limit=limit)


def image_reasons(gate: GateSpec | None, image: Image, appearance: Appearance | None = None) -> tuple[str, ...]:
    """Return what speaks against the image before any network sees it; empty if nothing does."""
    return (
        *(_header(gate, image.facts) if gate else ()),
        *_size(image.facts),
        *_colour(image.facts),
        *(_looks(appearance or look_at(image.pixels)) or _layout(gate.look if gate else None, image)),
    )


def _header(gate: GateSpec, facts: ImageFacts) -> Iterator[str]:
    if facts.modality and gate.modalities and facts.modality.strip().upper() not in gate.modalities:
        yield f"The header says modality {_quote(facts.modality)}; the reader was built for {_any_of(gate.modalities)}."
    if facts.body_part and gate.body_parts and not _regions(facts.body_part) & _regions(*gate.body_parts):
        yield (
            f"The header says body part {_quote(facts.body_part)}; the reader was built for {_any_of(gate.body_parts)}."
        )


def _size(facts: ImageFacts) -> Iterator[str]:
    if min(facts.rows, facts.columns) < MIN_SIDE_PX:
        yield (
            f"It is too small: {facts.columns} x {facts.rows} pixels, at least {MIN_SIDE_PX} on each side are needed."
        )


def _colour(facts: ImageFacts) -> Iterator[str]:
    if facts.colour > MAX_COLOUR:
        yield (
            f"It is a colour picture ({facts.colour:.0%} of the pixels are coloured): "
            "a photograph or screenshot, not a radiograph file."
        )


def _looks(seen: Appearance) -> tuple[str, ...]:
    """Give at most one reason: a blank page is not also noise."""
    page = seen.paper >= _PAGE_PAPER and seen.strokes >= _PAGE_STROKES and seen.structure <= _PAGE_STRUCTURE
    if page:
        return (f"It looks like a page of text: {seen.paper:.0%} is paper and the rest is thin strokes.",)
    if seen.spread < MIN_SPREAD or seen.paper > MAX_PAPER:
        return (f"It is blank or nearly so: {seen.paper:.0%} of the pixels have the same grey.",)
    if seen.structure < MIN_STRUCTURE:
        return ("It shows no anatomy: there is texture or noise, and no structure at the scale of a body.",)
    return ()


def _layout(look: LookSpec | None, image: Image) -> Iterator[str]:
    if look is None:
        return
    alike = likeness(look, image.pixels)
    if alike >= look.least:
        return
    figures = f"likeness of its layout {alike:.2f}, at least {look.least:.2f} is needed"
    if -alike >= _INVERTED:
        yield f"It looks like a negative of the images the reader learned from: {figures}; check its grey values."
    else:
        yield f"It is laid out unlike the images the reader learned from: {figures}; it may lie on its side."


def _regions(*texts: str) -> set[str]:
    words = {word for text in texts for word in re.findall(r"[A-Z]+", text.upper())}
    return {_SAME_PART.get(word, word) for word in words}


def _quote(text: str) -> str:
    """A header value as it may be printed: short, one line, printable ASCII."""
    clean = re.sub(r"[^ -~]+", "?", text.strip())[:32]
    return f"'{clean}'"


def _any_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
