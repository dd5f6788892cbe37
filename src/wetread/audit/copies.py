"""Copies that were cut, mirrored or scaled, found between the splits of a data set by registering images.

A perceptual hash does not survive a cut edge, and radiographs of one region look alike. Three steps, each with fewer
pairs: the 32-pixel thumbnails of a scan propose, for every image, those that correlate best with it, whole or zoomed
in on one side, mirrored or not; a registration of the thumbnails (scale and shift of each axis, gain and offset of
the grey values) keeps what fits; the same at :data:`SIDE` pixels decides by the fine structure alone, which two
films of one patient do not share. Rotated copies are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_DETAIL", "SIDE", "Registered", "cut_copies", "register"]

Floats = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
Load = Callable[[int], Floats]
"""From a row of the scan to its image, float32 (SIDE, SIDE) in grey values."""

SIDE = 128
"""Side of the images that decide, pixels."""
MIN_HALF, MIN_COARSE = 0.93, 0.965
"""Correlation of registered thumbnails, at half and at full size, from which a pair is looked at closely."""
MIN_DETAIL = 0.85
"""Correlation of the fine structure of registered images from which a pair is a copy."""
ZOOMS = (1.0, 0.95)
"""Shares of an image that its cut copy may show, as first guesses; the registration finds the true one."""
MIN_GUESS = 0.7
"""Correlation of thumbnails from which a guess is followed at all."""
_NEAREST_SHARE, _FEWEST = 0.003, 3
"""Pairs proposed for each image by each guess, as a share of those that it could be a copy of; and at least."""
_COARSE_STEPS, _STEPS, _FINE_STEPS = 4, 5, 4
_CHUNK = 2048
"""Pairs registered at once: 8 MB for each array of thumbnails."""
_ROWS = 512
_MIN_CONTRAST = 2.0
"""Standard deviation of a thumbnail (8 bit) below which it only shows noise."""
_LEAST_SHOWN = 0.7
"""Share of each axis that must be common to both images."""


@dataclass(frozen=True, slots=True)
class Registered:
    """Two rows of a scan that show the same film.

    ``second`` is the (``mirrored``) ``first`` where it covers ``shown`` of its area, 1 for a copy that was not cut.
    ``detail``: correlation of the fine structure.
    """

    first: int
    second: int
    mirrored: bool
    shown: float
    detail: float


def cut_copies(
    thumbs: NDArray[np.uint8], parts: NDArray[np.intp], load: Load, progress: Progress | None = None
) -> tuple[Registered, ...]:
    """Find copies between images of different parts.

    Args:
        thumbs: uint8 (N, THUMB, THUMB).
        parts: (N,), the split of each image as a number; negative: takes no part.
        load: Gives an image at :data:`SIDE` pixels; called for the few rows that the thumbnails propose.
        progress: Called with (stage, done, total) for the pairs that are looked at closely.

    Returns:
        Pairs with first < second, each once.
    """
    usable = (parts >= 0) & (thumbs.std(axis=(1, 2)) >= _MIN_CONTRAST)
    close = {(w, c, m): place for m in (False, True) for w, c, place in _close(thumbs, parts, usable, mirrored=m)}
    found: dict[tuple[int, int], Registered] = {}
    images: dict[int, Floats] = {}
    for number, ((whole, cut, mirrored), start) in enumerate(close.items(), 1):
        images |= {row: load(row) for row in (whole, cut) if row not in images}
        left = images[whole][:, ::-1] if mirrored else images[whole]
        detail, place = _fine(left, images[cut], start)
        pair = (min(whole, cut), max(whole, cut))
        if detail >= MIN_DETAIL and (pair not in found or found[pair].detail < detail):
            found[pair] = Registered(*pair, mirrored, round(_area(place), 3), round(detail, 3))
        if progress is not None:
            progress("comparing images", number, len(close))
    return tuple(found[pair] for pair in sorted(found))


def _area(place: Floats) -> float:
    """Share of the whole image that lies at a place, either of the two being the whole one."""
    share = float(place[0] * place[2])
    return min(share, 1 / share)


def _close(
    thumbs: NDArray[np.uint8], parts: NDArray[np.intp], usable: NDArray[np.bool_], *, mirrored: bool
) -> Iterator[tuple[int, int, Floats]]:
    """Pairs (whole, cut) whose registered thumbnails fit, with the place (4,) of the cut one in the whole one."""
    right = thumbs.astype(np.float32)
    left = right[:, :, ::-1] if mirrored else right
    halves = [_halved(images) for images in (left, right)]
    for zoom in ZOOMS:
        pairs = _proposed(_zoomed(left, zoom), right, parts, usable)
        if zoom == 1.0:  # both ways are the same
            pairs = np.unique(np.sort(pairs, axis=1), axis=0)
        for begin in range(0, len(pairs), _CHUNK):
            a, b = pairs[begin : begin + _CHUNK].T
            start = np.tile(np.array([zoom, 0, zoom, 0], np.float32), (len(a), 1))
            fit, place = register(halves[0][a], halves[1][b], start, _COARSE_STEPS)
            kept = np.flatnonzero(fit >= MIN_HALF)
            fit, place = register(left[a[kept]], right[b[kept]], place[kept], _STEPS)
            for index in np.flatnonzero(fit >= MIN_COARSE):
                yield int(a[kept[index]]), int(b[kept[index]]), place[index]


def _halved(images: Floats) -> Floats:
    n = images.shape[1] // 2
    return np.asarray(images.reshape(len(images), n, 2, n, 2).mean(axis=(2, 4)), np.float32)


def _proposed(left: Floats, right: Floats, parts: NDArray[np.intp], usable: NDArray[np.bool_]) -> NDArray[np.intp]:
    """For every image the nearest of the other parts, as pairs (row of left, row of right): (pairs, 2)."""
    a, b = _unit(left), _unit(right)
    found = [np.empty((0, 2), np.intp)]
    for part in np.unique(parts[usable]):
        mine, others = np.flatnonzero(usable & (parts == part)), np.flatnonzero(usable & (parts != part))
        nearest = min(len(others), max(_FEWEST, round(_NEAREST_SHARE * len(others))))
        for begin in range(0, len(mine) if nearest else 0, _ROWS):
            rows = mine[begin : begin + _ROWS]
            alike = b[rows] @ a[others].T
            best = np.argpartition(-alike, nearest - 1, axis=1)[:, :nearest]
            enough = np.take_along_axis(alike, best, 1) >= MIN_GUESS
            pairs = np.stack([others[best], np.broadcast_to(rows[:, None], best.shape)], axis=-1)
            found.append(pairs[enough])
    return np.concatenate(found)


def _unit(images: Floats) -> Floats:
    """Flat images without mean, of length 1: their products are correlations."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-6)), np.float32)


def _zoomed(images: Floats, share: float) -> Floats:
    if share == 1.0:
        return images
    weights = _sampling(np.array([[share, 0.0]], np.float32), images.shape[1])[0][0]
    return np.asarray(weights @ images @ weights.T, np.float32)


def register(left: Floats, right: Floats, start: Floats, steps: int) -> tuple[Floats, Floats]:
    """Find the part of each left image that the right one shows.

    Gauss-Newton steps over scale and shift of each axis, gain and offset (Lucas & Kanade 1981; Baker & Matthews
    2004, doi 10.1023/B:VISI.0000011205.11775.fd).

    Args:
        left: float32 (P, n, n), the whole images.
        right: float32 (P, n, n), those that may be cut.
        start: (P, 4): share of the rows and where their middle lies, from -1 to 1; the same for columns.
        steps: How many.

    Returns:
        Correlation (P,) where both have pixels, and the place (P, 4) like ``start``. Where less than
        :data:`_LEAST_SHOWN` of an axis is common the correlation is 0.
    """
    place = start.copy()
    for _ in range(steps):
        place += _step(left, right, place)
        np.clip(place[:, ::2], 0.6, 1.4, out=place[:, ::2])
        np.clip(place[:, 1::2], -0.4, 0.4, out=place[:, 1::2])
    warped, weight = _warped(left, place)
    enough = np.minimum(weight.any(2).mean(1), weight.any(1).mean(1)) >= _LEAST_SHOWN
    return np.where(enough, _correlation(warped, right, weight), 0).astype(np.float32), place


def _warped(left: Floats, place: Floats) -> tuple[Floats, Floats]:
    """The part of each left image at its place (P, n, n), and 1 where it lies inside the image, else 0."""
    rows, rows_inside = _sampling(place[:, :2], left.shape[1])
    columns, columns_inside = _sampling(place[:, 2:], left.shape[2])
    warped = np.matmul(np.matmul(rows, left), columns.transpose(0, 2, 1))
    return warped, rows_inside[:, :, None] * columns_inside[:, None, :]


def _sampling(place: Floats, n: int) -> tuple[Floats, Floats]:
    """Linear interpolation of one axis: weights (P, n, n) from old to new samples, and which are inside (P, n)."""
    grid = _axis(n)
    at = ((place[:, :1] * grid + place[:, 1:]) + 1) * np.float32(n / 2) - np.float32(0.5)
    inside = (at > -0.75) & (at < n - 0.25)
    at = np.clip(at, 0, n - 1)
    weights = np.clip(1 - np.abs(at[:, :, None] - np.arange(n, dtype=np.float32)), 0, None)
    return weights, inside.astype(np.float32)


def _axis(n: int) -> Floats:
    """Middles of n pixels from -1 to 1."""
    return ((np.arange(n, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / n) - 1).astype(np.float32)


def _step(left: Floats, right: Floats, place: Floats) -> Floats:
    """Change of the place (P, 4) that makes the linearised difference least."""
    warped, weight = _warped(left, place)
    right = right - right.mean(axis=(1, 2), keepdims=True)
    warped = warped - warped.mean(axis=(1, 2), keepdims=True)  # or gain and offset could not be told apart in float32
    n, grid = left.shape[1], _axis(left.shape[1])
    down, across = np.gradient(warped, 2 / n, axis=(1, 2))
    down /= place[:, 0, None, None]  # by place in the left image, not in the warped one
    across /= place[:, 2, None, None]
    parts = (down * grid[:, None], down, across * grid, across, warped, np.ones_like(warped))
    columns = np.stack([part.reshape(len(left), -1) for part in parts], axis=2)  # (P, n * n, 6)
    weighted = columns * weight.reshape(len(left), -1, 1)
    normal = np.matmul(weighted.transpose(0, 2, 1), columns).astype(np.float64)
    wanted = np.matmul(weighted.transpose(0, 2, 1), right.reshape(len(left), -1, 1)).astype(np.float64)
    diagonal = np.arange(len(parts))
    normal[:, diagonal, diagonal] += 1e-6 * normal[:, diagonal, diagonal] + 1e-3  # a flat film has no direction
    found = np.linalg.solve(normal, wanted)[:, :, 0]
    gain = np.where(np.abs(found[:, 4]) < 0.1, 1.0, found[:, 4])
    return np.clip(found[:, :4] / gain[:, None], -0.1, 0.1).astype(np.float32)


def _correlation(a: Floats, b: Floats, weight: Floats) -> Floats:
    """Weighted Pearson correlation (P,) of images (P, n, n)."""
    total = np.maximum(weight.sum((1, 2)), 1e-6)
    a = a - ((a * weight).sum((1, 2)) / total)[:, None, None]
    b = b - ((b * weight).sum((1, 2)) / total)[:, None, None]
    both = (a * b * weight).sum((1, 2))
    return np.asarray(both / np.sqrt(np.maximum((a * a * weight).sum((1, 2)) * (b * b * weight).sum((1, 2)), 1e-6)))


def _fine(left: Floats, right: Floats, start: Floats) -> tuple[float, Floats]:
    """Correlation of the fine structure of two images (SIDE, SIDE), and the place of the right in the left one."""
    from scipy.ndimage import gaussian_filter

    _, place = register(left[None], right[None], start[None], _FINE_STEPS)
    warped, weight = _warped(left[None], place)
    detail = [gaussian_filter(image, 1.0) - gaussian_filter(image, 4.0) for image in (warped[0], right)]
    return float(_correlation(detail[0][None], detail[1][None], weight)[0]), place[0]
