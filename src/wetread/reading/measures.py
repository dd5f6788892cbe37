"""From organ masks to sizes: areas, heights, widths, symmetry, cardiothoracic ratio.

Lengths follow the file's pixel spacing. Where that is the detector's (Imager Pixel Spacing), the beam
shows organs larger than they are, and in an AP film the heart more so than the chest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.types import Measure, Span

__all__ = [
    "CARDIOTHORACIC_RATIO",
    "ORGANS",
    "ORGAN_NAMES",
    "SECOND_LUNG_SHARE",
    "Regions",
    "box_of",
    "check_mask",
    "is_lateral",
    "measure_organs",
    "regions",
    "split_lungs",
]

Mask = NDArray[np.bool_]

CARDIOTHORACIC_RATIO = "cardiothoracic ratio"
"""Name of the measure that is compared with a classifier's answer."""

ORGANS = ("lungs", "lung_left", "lung_right", "heart")
"""The organs with measures; left and right are the patient's."""

ORGAN_NAMES = {"lungs": "lungs", "lung_left": "left lung", "lung_right": "right lung", "heart": "heart"}
"""What sentences call them."""

SECOND_LUNG_SHARE = 0.2
"""A second region is a second lung from this share of the first region's area.

Among 322 truth masks of frontal films (covid-cxr) the second lung has at least 0.57 of the first;
strays drawn into seven of them have at most 0.15.
"""

SIDE_BY_SIDE = 0.25
"""Two regions lie side by side when their centres are this share of the box's width apart.

Truth masks: at least 0.44. Two parts of one lung, one above the other: near 0.
"""

_NO_SPACING = "the file states no pixel spacing"
_LATERAL = "not measured in a lateral or oblique view"
_LATERAL_VIEWS = frozenset({"L", "LL", "RL", "LAT", "LLO", "RLO"})


@dataclass(frozen=True)
class Regions:
    """The connected regions of a mask, largest first; a shared corner does not connect.

    ``labels``: int32 (rows, columns), 0 outside. ``order``: (n,) the label of each region.
    ``sizes``: (n,) pixels of each region.
    """

    labels: NDArray[np.int32]
    order: NDArray[np.intp]
    sizes: NDArray[np.intp]

    def mask(self, place: int) -> Mask:
        """Return the region at ``place``, 0 for the largest: bool (rows, columns)."""
        return np.asarray(self.labels == self.order[place])


@dataclass(frozen=True)
class _Part:
    """A mask to measure, or None with the reason."""

    mask: Mask | None
    reason: str = ""


def check_mask(organ: str, mask: Mask) -> None:
    """Refuse an organ without measures and anything that is not a bool mask (rows, columns).

    Raises:
        UsageError: an unknown organ, a wrong dtype or shape.
    """
    if organ not in ORGANS:
        raise UsageError(expected(f"an organ among {', '.join(ORGANS)}", f"'{organ}'", "use one of them"))
    name = ORGAN_NAMES[organ]
    if mask.dtype != np.bool_:
        raise UsageError(expected(f"a bool mask of the {name}", mask.dtype, "compare with a threshold first"))
    if mask.ndim != 2 or mask.size == 0:
        raise UsageError(expected(f"a mask (rows, columns) of the {name}", f"shape {mask.shape}", "give one image"))


def is_lateral(view: str | None) -> bool:
    """Return whether ``view``, as in DICOM View Position (0018,5101), is lateral or oblique.

    An unknown view (None) counts as frontal. Decubitus views (LLD, RLD) are frontal films.
    """
    words = (view or "").strip().upper()
    return words in _LATERAL_VIEWS or ("LATERAL" in words and "DECUB" not in words)


def regions(mask: Mask) -> Regions:
    """Return the connected regions of ``mask``, bool (rows, columns), largest first."""
    from scipy import ndimage

    window = box_of(mask)  # organs fill half of a film, and films have millions of pixels
    inner, count = ndimage.label(mask[window])
    sizes = np.bincount(np.ravel(inner), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    labels = np.zeros(mask.shape, dtype=np.int32)
    labels[window] = inner
    return Regions(labels, order + 1, sizes[order])


def box_of(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around what is set in ``mask``; an empty one for none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def split_lungs(lungs: Mask, found: Regions | None = None) -> tuple[Mask, Mask] | None:
    """Return (image_left, image_right), each bool (rows, columns), of a mask of both lungs.

    The image's left side is the PATIENT'S RIGHT lung in a frontal view; in a lateral view the lungs
    lie over each other and must not be split. The two largest regions are taken, ordered by the
    column of their centres; smaller regions belong to neither. None when there are no two lungs
    side by side: they touch, one is missing or below ``SECOND_LUNG_SHARE``, or one is cut in two.
    ``found``: the regions of the mask, where they are known.

    Raises:
        UsageError: a mask that is not bool (rows, columns).
    """
    check_mask("lungs", lungs)
    found = regions(lungs) if found is None else found
    if len(found.sizes) < 2 or found.sizes[1] < SECOND_LUNG_SHARE * found.sizes[0]:
        return None
    pair = (found.mask(0), found.mask(1))
    centres = [_centre_column(one) for one in pair]
    start, stop = _extent(pair[0] | pair[1], axis=1)
    if abs(centres[0] - centres[1]) < SIDE_BY_SIDE * (stop - start):
        return None
    return pair if centres[0] < centres[1] else (pair[1], pair[0])


def measure_organs(
    masks: Mapping[str, Mask], spacing_mm: tuple[float, float] | None, *, view: str | None = None
) -> tuple[Measure, ...]:
    """Return the sizes of the organs in ``masks``: bool (rows, columns) each, named as in ``ORGANS``.

    ``spacing_mm`` is (row, column), None when the file states none: then areas and lengths have no
    value, and ratios still do. ``view``: as :func:`is_lateral` reads it; lateral views have no sides
    and no cardiothoracic ratio. Missing lung masks are made from the others where that is possible.

    - area (cm2) of each organ, with what the mask includes (the part of a lung behind the heart).
    - height (cm): first to last row. Width (cm): widest run in one row from the left-most to the
      right-most pixel, the mediastinum included; of the heart, left-most to right-most column.
    - left to right area ratio; symmetry index 1 - abs(L - R) / (L + R), from 0 to 1 (equal areas).
    - cardiothoracic ratio: width of the heart over width of the lungs, as above. Danzer 1919, Am J
      Med Sci 157:513: greatest transverse diameter of the heart over that of the inner chest. Film
      axes are used: a tilted patient is not turned upright. An AP film gives larger ratios than a PA film.

    Raises:
        UsageError: an unknown organ, masks of different shapes or not bool (rows, columns), a
            spacing that is not positive.
    """
    _check(masks, spacing_mm)
    lateral = is_lateral(view)
    parts = _parts(masks, lateral=lateral)
    found: list[Measure] = []
    for organ, part in parts.items():
        found += _sizes(organ, part, spacing_mm)
    if "lungs" in parts:
        found += _side_ratios(parts["lung_left"], parts["lung_right"], lateral=lateral)
        if "heart" in parts:
            found.append(_cardiothoracic(parts, lateral=lateral))
    return tuple(found)


def _check(masks: Mapping[str, Mask], spacing_mm: tuple[float, float] | None) -> None:
    for organ, mask in masks.items():
        check_mask(organ, mask)
    shapes = sorted({mask.shape for mask in masks.values()})
    if len(shapes) > 1:
        raise UsageError(expected("masks of one shape", shapes, "give masks of the same image"))
    if spacing_mm is not None and not all(0 < mm < np.inf for mm in spacing_mm):
        raise UsageError(
            expected("a spacing (row, column) above 0 mm", spacing_mm, "give None when the file states none")
        )


def _parts(masks: Mapping[str, Mask], *, lateral: bool) -> dict[str, _Part]:
    """Every organ that is given or follows from what is given, in the order of ``ORGANS``."""
    parts = {organ: _part(organ, masks[organ]) for organ in ORGANS if organ in masks}
    if not parts.keys() - {"heart"}:
        return parts
    absent = [side for side in ("lung_left", "lung_right") if side not in masks]
    if "lungs" not in masks:
        parts["lungs"] = _union(masks, absent)
    if absent:
        sides = _sides(parts["lungs"], lateral=lateral)
        parts |= {side: sides[side] for side in absent}
    return {organ: parts[organ] for organ in ORGANS if organ in parts}


def _part(organ: str, mask: Mask) -> _Part:
    return _Part(mask) if mask.any() else _Part(None, f"the mask of the {ORGAN_NAMES[organ]} is empty")


def _union(masks: Mapping[str, Mask], absent: list[str]) -> _Part:
    if absent:
        return _Part(None, f"there is no mask of the {ORGAN_NAMES[absent[0]]}")
    return _part("lungs", masks["lung_left"] | masks["lung_right"])


def _sides(lungs: _Part, *, lateral: bool) -> dict[str, _Part]:
    """Each lung out of the mask of both."""
    if lateral or lungs.mask is None:
        none = _Part(None, _LATERAL) if lateral else lungs
        return {"lung_left": none, "lung_right": none}
    pair = split_lungs(lungs.mask)
    if pair is None:
        none = _Part(None, "the mask of the lungs does not part into two: they touch, or one is missing")
        return {"lung_left": none, "lung_right": none}
    return {"lung_left": _Part(pair[1]), "lung_right": _Part(pair[0])}  # the patient faces the viewer


def _sizes(organ: str, part: _Part, spacing_mm: tuple[float, float] | None) -> list[Measure]:
    """Area, height and width of one organ; the height of a heart's mask depends on where it was cut off."""
    names = [("area", "cm2"), ("height", "cm"), ("width", "cm")]
    if organ == "heart":
        names.remove(("height", "cm"))
    if part.mask is None or spacing_mm is None:
        reason = part.reason or _NO_SPACING
        return [Measure(name=name, organ=organ, value=None, unit=unit, reason=reason) for name, unit in names]
    row_cm, column_cm = (mm / 10 for mm in spacing_mm)
    top, bottom = _extent(part.mask, axis=0)
    across = _heart_span(part.mask) if organ == "heart" else _widest_run(part.mask)
    values = {
        "area": int(part.mask.sum()) * row_cm * column_cm,
        "height": (bottom - top) * row_cm,
        "width": (across.right - across.left) * column_cm,
    }
    return [Measure(name=name, organ=organ, value=values[name], unit=unit) for name, unit in names]


def _side_ratios(left: _Part, right: _Part, *, lateral: bool) -> list[Measure]:
    """How the areas of the two lungs compare; every pixel has the same area, so no spacing is needed."""
    ratio, symmetry = "left to right area ratio", "symmetry index"
    if lateral or left.mask is None or right.mask is None:
        reason = _LATERAL if lateral else left.reason or right.reason
        return [Measure(name=n, organ="lungs", value=None, unit="1", reason=reason) for n in (ratio, symmetry)]
    l_px, r_px = int(left.mask.sum()), int(right.mask.sum())
    return [
        Measure(name=ratio, organ="lungs", value=l_px / r_px, unit="1"),
        Measure(name=symmetry, organ="lungs", value=1 - abs(l_px - r_px) / (l_px + r_px), unit="1"),
    ]


def _cardiothoracic(parts: Mapping[str, _Part], *, lateral: bool) -> Measure:
    """Both widths run along the columns, so their ratio needs no spacing."""
    found = _LATERAL if lateral else _heart_and_chest(parts)
    if isinstance(found, str):
        return Measure(name=CARDIOTHORACIC_RATIO, organ="heart", value=None, unit="1", reason=found)
    heart, chest = found
    ratio = (heart.right - heart.left) / (chest.right - chest.left)
    if ratio > 1:
        reason = "the heart is wider than the chest"
        return Measure(name=CARDIOTHORACIC_RATIO, organ="heart", value=None, unit="1", reason=reason)
    return Measure(name=CARDIOTHORACIC_RATIO, organ="heart", value=ratio, unit="1", spans=found)


def _heart_and_chest(parts: Mapping[str, _Part]) -> tuple[Span, Span] | str:
    """The two widths of the ratio, or why they cannot be had."""
    heart, lungs = parts["heart"], parts["lungs"]
    if heart.mask is None or lungs.mask is None:
        return heart.reason or lungs.reason
    # An empty mask of one lung leaves the other's width, which is not the chest's.
    empty = [parts[s].reason for s in ("lung_left", "lung_right") if parts[s].reason.endswith("empty")]
    if empty:
        return empty[0]
    spans = _heart_span(heart.mask), _widest_run(lungs.mask)
    middle = (spans[0].left + spans[0].right) / 2
    return spans if spans[1].left < middle < spans[1].right else "the heart does not lie between the lungs"


def _heart_span(mask: Mask) -> Span:
    """Left-most to right-most column, drawn half-way between the rows of the two."""
    left, right = _extent(mask, axis=1)
    rows = [np.flatnonzero(mask[:, column]).mean() for column in (left, right - 1)]
    return Span(of="heart", y=float(np.mean(rows)) + 0.5, left=left, right=right)


def _extent(mask: Mask, *, axis: int) -> tuple[int, int]:
    """First and one past the last row (axis 0) or column (axis 1) of a mask that is not empty."""
    hit = np.flatnonzero(mask.any(axis=1 - axis))
    return int(hit[0]), int(hit[-1]) + 1


def _widest_run(mask: Mask) -> Span:
    """First and one past the last column of the row with the largest distance between the two."""
    rows = np.flatnonzero(mask.any(axis=1))
    filled = mask[rows]
    first = filled.argmax(axis=1)
    stop = filled.shape[1] - filled[:, ::-1].argmax(axis=1)
    widest = int(np.argmax(stop - first))
    return Span(of="chest", y=float(rows[widest]) + 0.5, left=float(first[widest]), right=float(stop[widest]))


def _centre_column(mask: Mask) -> float:
    counts = mask.sum(axis=0)
    return float(counts @ np.arange(len(counts)) / counts.sum())
