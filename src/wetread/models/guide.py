"""Leading a reader to one organ: what lies outside it is filled, or cut away, before the network sees the image.

The mask comes from a segmenter that the reader's card names by hash. Source of the idea: organ first, then disease
(arXiv 1808.08277). Readers that were only trained with the organ are shown whole images; see :class:`GuideSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.models.card import GuideSpec
from wetread.models.organs import Segmenter
from wetread.types import Image

__all__ = ["Guide", "Hidden", "Window", "box_around", "organ_alone", "organ_removed", "widened"]

Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]
Window = tuple[int, int, int, int]
"""(top, left, height, width) of a part of an image, pixels."""


@dataclass(frozen=True)
class Guide:
    """A segmenter with what is done with its mask; see :class:`GuideSpec`."""

    spec: GuideSpec
    segmenter: Segmenter

    def __post_init__(self) -> None:
        if self.spec.organ not in self.segmenter.organs:
            there = ", ".join(self.segmenter.organs)
            raise UsageError(
                expected(
                    f"a segmenter that finds {self.spec.organ}", f"one for {there}", "name another with --segmenter"
                )
            )

    @property
    def key(self) -> str:
        """What decides the guided pixels, as text: part of the name of a cache."""
        return f"{self.segmenter.card.sha256} {self.spec.model_dump_json()}"

    @property
    def changes_pixels(self) -> bool:
        """Whether the network is shown something else than the image."""
        return self.spec.when_reading

    def unseen(self, sha256: str) -> Guide:
        """The same guide with the networks that never learned the image file of that hash.

        Raises:
            DatasetRefused: all of them learned it.
        """
        return replace(self, segmenter=self.segmenter.unseen(sha256))

    def masks(self, image: Image) -> dict[str, Mask]:
        """All organs of the image that the segmenter finds, bool (rows, columns), as it draws them."""
        return self.segmenter.masks(image)

    def mask(self, image: Image) -> Mask:
        """The organ of the image, bool (rows, columns), as the segmenter draws it."""
        return self.masks(image)[self.spec.organ]

    def area(self, image: Image) -> Mask:
        """The organ of the image with its margin, bool (rows, columns)."""
        return widened(self.mask(image), self.spec.margin)

    def window(self, mask: Mask) -> Window | None:
        """What a cropping guide shows of an image with that organ; None where the image keeps its size."""
        return box_around(widened(mask, self.spec.margin)) if self.spec.kind == "crop" else None

    def apply(self, pixels: Pixels, mask: Mask) -> Pixels:
        """Return what the network is shown of an image, float32 in [0, 1].

        An empty mask leaves nothing to read: the whole image is filled, or shown, and the caller refuses it.
        """
        if self.spec.kind == "mask":
            return organ_alone(pixels, widened(mask, self.spec.margin), self.spec.fill)
        window = self.window(mask)
        if window is None:
            return pixels
        top, left, height, width = window
        return pixels[top : top + height, left : left + width]

    def pixels(self, image: Image) -> Pixels:
        """Find the organ and return what the network is shown."""
        return self.apply(image.pixels, self.mask(image))


@dataclass(frozen=True)
class Hidden:
    """Shows a reader all but one organ: the question what it makes of the rest.

    ``finder`` finds the organ, whose area with its margin takes the mean grey of what lies outside. ``guide`` is the
    reader's own, which still sees the organ's mask: otherwise it would be shown another place.
    """

    finder: Guide
    guide: Guide | None = None

    @property
    def key(self) -> str:
        """What decides the pixels, as text: part of the name of a cache."""
        return f"hidden {self.finder.key} {self.guide.key if self.guide else ''}"

    @property
    def changes_pixels(self) -> bool:
        """Whether the network is shown something else than the image: always."""
        return True

    def unseen(self, sha256: str) -> Hidden:
        """The same question with the networks that never learned the image file of that hash."""
        return Hidden(self.finder.unseen(sha256), self.guide.unseen(sha256) if self.guide else None)

    def pixels(self, image: Image) -> Pixels:
        """Return what the network is shown, float32 in [0, 1]; an image without the organ stays whole."""
        mask = self.finder.area(image)
        rest = organ_removed(image.pixels, mask) if mask.any() else image.pixels
        return self.guide.apply(rest, self.guide.mask(image)) if self.guide else rest


def box_around(mask: Mask) -> Window:
    """The smallest window that holds all of the mask (rows, columns); the whole image for an empty one."""
    if not mask.any():
        return 0, 0, *mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def widened(mask: Mask, margin: float) -> Mask:
    """Widen a mask (rows, columns) by ``margin`` of the shorter side on all sides, as a square would."""
    steps = round(margin * min(mask.shape))
    if not steps:
        return mask
    return _running_any(_running_any(mask, steps).T, steps).T


def _running_any(mask: Mask, steps: int) -> Mask:
    """Whether a pixel within ``steps`` rows is set: windows are joined to twice their height, again and again."""
    found = np.pad(mask, ((steps, steps), (0, 0)))
    height, joined = 2 * steps + 1, 1
    while joined < height:
        further = min(joined, height - joined)
        found = found[:-further] | found[further:]
        joined += further
    return found


def organ_alone(pixels: Pixels, mask: Mask, fill: str) -> Pixels:
    """Fill what lies outside ``mask``: ``black``, or the ``mean`` grey of the organ."""
    return np.where(mask, pixels, _grey(pixels, mask, fill)).astype(np.float32)


def organ_removed(pixels: Pixels, mask: Mask, fill: str = "mean") -> Pixels:
    """The opposite of :func:`organ_alone`: fill what lies inside with the mean grey of the rest, or black."""
    return organ_alone(pixels, ~mask, fill)


def _grey(pixels: Pixels, kept: Mask, fill: str) -> np.float32:
    fills: Mapping[str, float] = {"black": 0.0, "mean": float(pixels[kept].mean()) if kept.any() else 0.0}
    if fill not in fills:
        raise UsageError(expected(f"a fill among {', '.join(fills)}", repr(fill), "set --fill to one"))
    return np.float32(fills[fill])
