"""One reader shown the same films in many ways: what it answers to each, and nothing else kept.

Decided here: each film is decoded once and its organ found once; a variant is a pure function of the film and of a
generator that seed, film and variant decide, so that order and company change nothing; a variant and the untouched
film run in batches of the same size and at the same place, so that a change of no pixel is a change of exactly 0.
Films that a gate would refuse are read too: leaving them out would make the question easier than the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.audit.result import Answered
from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import load_masks, mask_column
from wetread.datasets.splits import assert_no_leak
from wetread.errors import DatasetRefused, ImageRefused, SplitRefused, UsageError, expected
from wetread.imaging import load_image
from wetread.models.bundle import HIDING_MARGIN
from wetread.models.guide import Guide, widened
from wetread.models.inputs import fit_pixels
from wetread.models.predict import Reader, probabilities_of
from wetread.runtime import in_order, thread_count
from wetread.training.data import Progress, labels_of, targets_of
from wetread.training.predictions import refuse_other_labels

if TYPE_CHECKING:
    import pandas as pd

    from wetread.types import Image

__all__ = [
    "UNTOUCHED",
    "Film",
    "OneLabel",
    "OrganSource",
    "Pair",
    "Readings",
    "Variant",
    "called",
    "read_variants",
    "sampled",
    "worst",
]

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

UNTOUCHED = "untouched"
"""Name of the film as it is, read with the views of the card."""

_BATCH = 16
_BLOCK_BYTES = 256 << 20
"""What the prepared inputs of one block may take; wide inputs run in smaller batches."""
_GUIDED_LIMIT = 120
"""Films per variant in which a guided reader has to find its organ anew: that takes longer than reading them."""


@dataclass(frozen=True)
class OrganSource:
    """Where masks of the organ come from: the data set's own where every film has one, else ``finder``.

    Two origins in one sample could tell the label themselves. Without a finder the films that have masks are used.
    ``margin``: how far a mask is widened before it hides, share of the shorter side.
    """

    organ: str
    finder: Guide | None = None
    margin: float = HIDING_MARGIN


@dataclass(frozen=True)
class Film:
    """One image with the area of its organ, bool (rows, columns), margin included; None where nobody knows it."""

    image: Image
    area: Mask | None = None

    @property
    def pixels(self) -> Pixels:
        """Float32 (rows, columns) in [0, 1]."""
        return self.image.pixels


Change = Callable[[Film, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Variant:
    """One way to show a film.

    ``change`` returns float32 (rows, columns) in [0, 1] of the film's own size and never writes into it. ``views``:
    zooms averaged, None for as many as the card says. ``limit``: at most so many images, whole patients, drawn by the
    seed; None for all. ``needs_organ``: films without a mask are left out. ``found_again``: a guided reader finds its
    organ in the changed film, as it would in use; else it keeps the organ of the untouched one.
    """

    name: str
    change: Change
    views: int | None = None
    limit: int | None = None
    needs_organ: bool = False
    found_again: bool = True


@dataclass(frozen=True)
class Pair:
    """What the reader says of n films untouched and changed.

    ``before``, ``after``: calibrated probabilities (n, outputs). ``targets``: (n, outputs) 1, 0 or NaN. ``patients``:
    (n,). ``rows``: (n,) numbers of the films in the readings.
    """

    before: Floats
    after: Floats
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]
    rows: NDArray[np.intp]

    def of(self, label: int) -> OneLabel:
        """The films whose truth is known for one label."""
        known = np.isfinite(self.targets[:, label])
        before, after = self.before[known, label], self.after[known, label]
        return OneLabel(before, after, self.targets[known, label] > 0, self.patients[known], self.rows[known])


@dataclass(frozen=True)
class OneLabel:
    """One label of a :class:`Pair`: probabilities (n,) before and after, truth bool (n,), patients and rows (n,)."""

    before: Floats
    after: Floats
    truth: Mask
    patients: NDArray[np.str_]
    rows: NDArray[np.intp]

    @property
    def patients_per_class(self) -> int:
        """Patients with, or without, the label: whichever are fewer."""
        return min(np.unique(self.patients[self.truth]).size, np.unique(self.patients[~self.truth]).size)


@dataclass(frozen=True)
class Readings:
    """What a reader says of N films in K variants.

    ``logits``: float32 (N, K, outputs), NaN where a variant was not read. ``targets``: (N, outputs). ``patients``:
    (N,). ``masks``: how many films had an ``annotated`` mask, one ``found`` by the segmenter, or ``none``.
    """

    films: _Films
    reader: Reader
    variants: tuple[Variant, ...]
    logits: NDArray[np.float32]
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]
    masks: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def organ(self) -> OrganSource | None:
        """Where the masks came from."""
        return self.films.organ

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            UsageError: it was not read.
        """
        for one in self.variants:
            if one.name == name:
                return one
        names = ", ".join(one.name for one in self.variants)
        raise UsageError(expected(f"a variant among {names}", repr(name), "hand it to read_variants"))

    def probabilities(self, name: str) -> Floats:
        """Calibrated probabilities (N, outputs) of one variant; NaN where it was not read."""
        logits = self.logits[:, self.variants.index(self.variant(name))]
        return probabilities_of(logits, self.reader.card.temperature, softmax=self.reader.softmax)

    def pair(self, name: str) -> Pair:
        """The films that were read in the variant, beside the same films untouched with as many views."""
        untouched = _untouched(_views(self.variant(name), self.reader), self.reader).name
        before, after = self.probabilities(untouched), self.probabilities(name)
        rows = np.flatnonzero(np.isfinite(after).all(axis=1))
        return Pair(before[rows], after[rows], self.targets[rows], self.patients[rows], rows)

    def pixels(self, row: int, names: Sequence[str]) -> list[Pixels]:
        """Make variants of one film again, for a picture: float32 (rows, columns) each."""
        film = self.films.film(row, with_organ=any(self.variant(name).needs_organ for name in names))
        return [self.films.changed(film, self.variant(name)) for name in names]


def read_variants(
    reader: Reader,
    manifest: Manifest,
    variants: Sequence[Variant],
    *,
    split: str | None = "test",
    organ: OrganSource | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Readings:
    """Show the films of ``split`` (None: all) to the reader in each variant and, for comparison, untouched.

    Raises:
        SplitRefused: the split leaks, or has no images.
        DatasetRefused: other labels than the reader's, images that cannot be read or that the segmenter of a guided
            reader has learned, or masks that cannot be used.
        WetreadError: scores that are not finite.
    """
    assert_no_leak(manifest)
    refuse_other_labels(reader, manifest)
    table = manifest.table if split is None else manifest.table[manifest.table["split"] == split]
    if not len(table):
        raise SplitRefused(expected(f"images in the split {split!r}", "none", "name another --split"))
    asked = _with_untouched(variants, reader)
    table = sampled(
        table, None if any(v.limit is None for v in variants) else max(v.limit or 0 for v in variants), seed
    )
    films = _Films(manifest, table, reader.guide, organ, seed)
    reach = _reaches(films.patients, asked, reader)
    logits = np.full((len(table), len(asked), len(labels_of(manifest.meta))), np.nan, np.float32)
    show = _Showing(films, reader, asked, tuple(reach))
    masks = {"annotated": 0, "found": 0, "none": 0}
    for start in range(0, max(reach), show.batch):
        block = range(start, min(start + show.batch, len(table)))
        shown = list(in_order(show.inputs, block, thread_count()))
        for one in shown:
            if one.mask_from:
                masks[one.mask_from] += 1
        show.read(shown, logits[block.start : block.stop])
        if progress:
            progress("showing changed images", block.stop, max(reach))
    n = max(reach)
    targets = targets_of(table, manifest.meta)
    return Readings(films, reader, asked, logits[:n], targets[:n], films.patients[:n], masks)


def called(reader: Reader, probabilities: Floats) -> Mask:
    """Which labels are called, bool (n, outputs), at the card's default operating point, as a read calls them.

    Without one: the most probable of exclusive classes, else 0.5.
    """
    card = reader.card
    if card.task == "multiclass" and not card.operating_points:
        return np.asarray(probabilities == probabilities.max(axis=1, keepdims=True))
    points = [card.operating_point(label) for label in card.labels]
    return probabilities >= np.array([0.5 if point is None else point.threshold for point in points])


def worst(answers: Iterable[Answered]) -> Answered:
    """The verdict over several labels or conditions: the worst of those that could be assessed."""
    given = set(answers)
    for answer in ("FAIL", "WARN", "PASS"):
        if answer in given:
            return answer
    return "NOT ASSESSABLE"


def sampled(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """Draw whole patients without regard to labels until ``limit`` images would be passed; None: all rows.

    Rows come in the order of the draw, so that a smaller limit is the beginning of a larger one.
    """
    patients = _patients(table)
    names, codes = np.unique(patients, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))[codes]
    order = np.lexsort((table["path"].astype(str).to_numpy(dtype=np.str_), rank))
    drawn = table.iloc[order].reset_index(drop=True)
    return drawn if limit is None else drawn.iloc[: _whole(patients[order], limit)]


def _patients(table: pd.DataFrame) -> NDArray[np.str_]:
    return table["patient"].fillna(table["path"]).astype(str).to_numpy(dtype=np.str_)


def _whole(patients: NDArray[np.str_], limit: int) -> int:
    """Rows of the longest beginning of whole patients with at most ``limit`` images; at least one patient."""
    if limit >= len(patients):
        return len(patients)
    ends = np.flatnonzero(np.append(patients[1:] != patients[:-1], True)) + 1
    return int(max(ends[0], ends[ends <= limit].max(initial=0)))


def _reaches(patients: NDArray[np.str_], asked: Sequence[Variant], reader: Reader) -> tuple[int, ...]:
    """How many films each variant is read of; an untouched one as many as any that is compared with it."""
    reach: dict[str, int] = {}
    for one in asked:
        limit = len(patients) if one.limit is None else one.limit
        again = reader.guide is not None and one.found_again
        reach[one.name] = _whole(patients, min(limit, _GUIDED_LIMIT) if again else limit)
    for views in {_views(one, reader) for one in asked}:
        untouched = _untouched(views, reader).name
        others = [reach[one.name] for one in asked if one.name != untouched and _views(one, reader) == views]
        reach[untouched] = max(others)
    return tuple(reach[one.name] for one in asked)


def _views(variant: Variant, reader: Reader) -> int:
    return reader.card.views if variant.views is None else min(variant.views, reader.card.views)


def _untouched(views: int, reader: Reader) -> Variant:
    name = UNTOUCHED if views == reader.card.views else f"{UNTOUCHED}, views {views}"
    return Variant(name, lambda film, _: film.pixels, views=views, found_again=False)


def _with_untouched(variants: Sequence[Variant], reader: Reader) -> tuple[Variant, ...]:
    """Put the untouched film first, once for each number of views that a variant asks for."""
    if not variants:
        raise UsageError(expected("at least one variant", "none", "name what is to be changed"))
    views = sorted({_views(one, reader) for one in variants}, reverse=True)
    asked = (*(_untouched(count, reader) for count in views), *variants)
    names = [one.name for one in asked]
    if len(set(names)) != len(names):
        raise UsageError(expected("variants with names of their own", ", ".join(names), "rename one"))
    return asked


@dataclass(frozen=True)
class _Films:
    """The films of a table, decoded when asked for, with the organ that variants hide and the one a guide needs."""

    manifest: Manifest
    table: pd.DataFrame
    guide: Guide | None
    organ: OrganSource | None
    seed: int

    @property
    def patients(self) -> NDArray[np.str_]:
        return _patients(self.table)

    @cached_property
    def all_annotated(self) -> bool:
        """Whether every film has a mask of its own."""
        column = None if self.organ is None else mask_column(self.organ.organ, self.manifest)
        return column is not None and bool(self.table[column].notna().all())

    def film(self, row: int, *, with_organ: bool) -> Film:
        """Decode one film; with the area of its organ where that is known and asked for."""
        path = self.manifest.path_of(str(self.table["path"].iloc[row]))
        try:
            image = load_image(path)
        except ImageRefused as error:
            cure = "run `wetread dataset check` and leave it out"
            raise DatasetRefused(expected("readable images", f"{path.name} ({error})", cure)) from error
        return Film(image, self.area(row, image)[0] if with_organ else None)

    def area(self, row: int, image: Image) -> tuple[Mask | None, str]:
        """The organ of one film with its margin, and where that is from: ``annotated``, ``found`` or ``none``."""
        if self.organ is None:
            return None, "none"
        if self.organ.finder is None or self.all_annotated:
            mask, origin = self._annotated(row, image), "annotated"
        else:
            mask, origin = _found(self.organ.finder, image), "found"
        if mask is None or not mask.any() or mask.all():
            return None, "none"
        return widened(mask, self.organ.margin), origin

    def _annotated(self, row: int, image: Image) -> Mask | None:
        organ = self.organ.organ if self.organ else ""
        return load_masks(self.manifest, self.table.iloc[row], [organ], *image.pixels.shape)[organ]

    def changed(self, film: Film, variant: Variant) -> Pixels:
        """One variant of a film; the same whenever it is asked for."""
        words = (film.image.facts.sha256, variant.name)
        return variant.change(film, np.random.default_rng([self.seed, *map(_number, words)]))


def _found(finder: Guide, image: Image) -> Mask | None:
    try:
        return finder.unseen(image.facts.sha256).mask(image)
    except DatasetRefused:
        return None  # a network that learned the film draws a better mask than it will draw elsewhere


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class _Shown:
    """The inputs of one film, float32 (K, height, width), which of them count (K,), and where its mask is from."""

    inputs: Pixels
    counts: Mask
    mask_from: str


@dataclass(frozen=True)
class _Showing:
    """Makes inputs of films, and answers of inputs; variant k is shown of the first ``reach[k]`` films."""

    films: _Films
    reader: Reader
    variants: tuple[Variant, ...]
    reach: tuple[int, ...]

    @property
    def batch(self) -> int:
        """Films of a block, the same for all variants."""
        one = 4 * self.reader.input.height * self.reader.input.width * len(self.variants)
        return int(np.clip(_BLOCK_BYTES // one, 1, _BATCH))

    def inputs(self, row: int) -> _Shown:
        """Show one film in all its variants, at the geometry of the reader's input."""
        here = [row < reach for reach in self.reach]
        wanted = any(one.needs_organ and count for one, count in zip(self.variants, here, strict=True))
        film, origin = self.films.film(row, with_organ=False), ""
        if wanted:
            area, origin = self.films.area(row, film.image)
            film = replace(film, area=area)
        guide = self.reader.guide.unseen(film.image.facts.sha256) if self.reader.guide else None
        own = guide.mask(film.image) if guide else None
        spec = self.reader.input
        inputs = np.zeros((len(self.variants), spec.height, spec.width), np.float32)
        counts = np.zeros(len(self.variants), np.bool_)
        for k, variant in enumerate(self.variants):
            if not here[k] or (variant.needs_organ and film.area is None):
                continue
            pixels = self.films.changed(film, variant)
            if guide is not None and own is not None:
                again = variant.found_again and pixels is not film.pixels
                pixels = guide.apply(pixels, guide.mask(replace(film.image, pixels=pixels)) if again else own)
            inputs[k], counts[k] = fit_pixels(pixels, spec), True
        return _Shown(inputs, counts, origin)

    def read(self, shown: Sequence[_Shown], logits: NDArray[np.float32]) -> None:
        """Read a block of films in every variant into ``logits`` (films, K, outputs)."""
        for k, variant in enumerate(self.variants):
            counts = np.array([one.counts[k] for one in shown])
            if not counts.any():
                continue
            # Inputs that do not count are blank and stay in: without them the others would stand elsewhere in a
            # batch of another size, and the last bits of their scores would change.
            batch = torch.from_numpy(np.stack([one.inputs[k] for one in shown])[:, None])
            forward = self.reader.forward(batch, _views(variant, self.reader))
            self.reader.probabilities(forward)  # refuses scores that are not finite: NaN means not read here
            logits[counts, k] = forward.logits.numpy()[counts]
