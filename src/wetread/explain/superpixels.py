"""The pieces that LIME hides: compact, connected patches of the body, numbered from 0.

Decided here: only the body is divided, because a black frame holds nothing to hide, and what lies outside it is one
background that is never hidden; 60 to 150 pieces, because fewer cover half an organ each and more need more samples
than a reader can be asked for; the same image is always divided alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ExplanationFailed, expected

__all__ = ["BACKGROUND", "FEWEST", "MOST", "WANTED", "Superpixels", "body_mask", "divide"]

WANTED = 100
"""Superpixels asked for: about a hundredth of the body each."""

FEWEST, MOST = 60, 150
"""Bounds of the number of superpixels."""

BACKGROUND = -1
"""Label of what lies outside the body."""

_COMPACTNESS = 0.1
"""Weight of distance against grey values in [0, 1]: pieces follow strong edges and are squares elsewhere."""

_DARK = 0.04
"""Grey above the darkest by this share of the range (1st to 99th percentile) is no padding: JPEG noise stays below."""

_LEAST_BODY = 0.2
"""A body of less than this share of the image is not believed."""

_TRIES = 6


@dataclass(frozen=True, eq=False)
class Superpixels:
    """A division of one image. ``labels``: int32 (H, W), 0 to ``count`` - 1, and -1 outside the body."""

    labels: NDArray[np.int32]

    @cached_property
    def count(self) -> int:
        """Number of superpixels."""
        return int(self.labels.max()) + 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Pixels of each superpixel, (count,)."""
        return np.bincount(self.labels[self.body], minlength=self.count)

    @cached_property
    def body(self) -> NDArray[np.bool_]:
        """Where superpixels lie, bool (H, W)."""
        return np.asarray(self.labels != BACKGROUND)

    @cached_property
    def neighbours(self) -> NDArray[np.bool_]:
        """Which superpixels share an edge, bool (count, count), symmetric, False on the diagonal."""
        found = np.zeros((self.count, self.count), dtype=np.bool_)
        for first, second in ((self.labels[:-1], self.labels[1:]), (self.labels[:, :-1], self.labels[:, 1:])):
            apart = (first != second) & (first != BACKGROUND) & (second != BACKGROUND)
            found[first[apart], second[apart]] = True
        return found | found.T

    def hidden(self, off: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the pixels (N, H, W) that N masks (N, count) hide; the background never is."""
        padded = np.concatenate([off, np.zeros((len(off), 1), dtype=np.bool_)], axis=1)
        return padded[:, self.labels]  # the label -1 picks the last column

    def spread(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share the value of each superpixel (count,) evenly among its pixels, float32 (H, W); 0 outside the body."""
        shares = np.append(values / self.sizes, 0.0)
        return shares[self.labels].astype(np.float32)


def body_mask(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return everything of (H, W) but padding and black frames: the largest bright area, holes filled.

    All of the image where no such area covers a fifth of it.
    """
    from scipy import ndimage

    low, high = np.percentile(image, (1, 99))
    bright = image > min(float(image.min()), float(low)) + _DARK * (high - low)
    areas, count = ndimage.label(bright)
    if not count:
        return np.ones(image.shape, dtype=np.bool_)
    largest = 1 + int(np.argmax(np.bincount(areas.ravel())[1:]))
    body = cast(NDArray[np.bool_], ndimage.binary_fill_holes(areas == largest))
    return body if body.mean() >= _LEAST_BODY else np.ones(image.shape, dtype=np.bool_)


def divide(image: NDArray[np.float32], wanted: int = WANTED) -> Superpixels:
    """Divide the body in (H, W), values in [0, 1], into ``wanted`` superpixels, between 60 and 150.

    Asked again with another number where the first answer is out of these bounds.

    Raises:
        ExplanationFailed: the image is too small, or so made that no number gives 60 to 150.

    Source: SLIC, Achanta et al., TPAMI 2012; inside a mask: Irving, arXiv 1606.09518. scikit-image numbers
    superpixels from 1 by default, and merges small ones; here they are always 0 to n - 1.
    """
    body = body_mask(image)
    asked, got = wanted, 0
    for _ in range(_TRIES):
        labels = _slic(image, body, asked)
        got = int(labels.max()) + 1
        if FEWEST <= got <= MOST:
            return Superpixels(labels)
        asked = max(2, min(round(asked * wanted / max(got, 1)), int(body.sum())))
    raise ExplanationFailed(
        expected(
            f"{FEWEST} to {MOST} superpixels",
            f"{got} in {image.shape[0]}x{image.shape[1]} pixels",
            "use a reader with a larger input, or another --method",
        )
    )


def _slic(image: NDArray[np.float32], body: NDArray[np.bool_], asked: int) -> NDArray[np.int32]:
    """Labels from 0 without gaps inside the body, -1 outside."""
    from skimage.segmentation import slic

    raw = slic(image, n_segments=asked, compactness=_COMPACTNESS, sigma=1, start_label=1, mask=body, channel_axis=None)
    labels = np.full(image.shape, BACKGROUND, dtype=np.int32)
    labels[body] = np.unique(raw[body], return_inverse=True)[1].reshape(-1)
    return labels
