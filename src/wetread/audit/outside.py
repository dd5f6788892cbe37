"""T12: whether the gate knows what the reader was not built for: junk, and films of another kind.

Decided here: far images are made in code, so that every audit tries the same: noise, blank, patterns, a page,
photographs, a head, a hand, and negatives of the reader's own films. Near ones are films from elsewhere that somebody
has to hand in; without them half of the question is open, and it cannot be a pass. The feature distance is judged by
its AUROC, the whole gate by the shares that it refuses. Why features and not scores: OpenMIBOOD, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wetread.audit.junk import JUNK, altered, junk_image
from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.strips import Pictures, illustrated, strip_png
from wetread.audit.thresholds import Thresholds
from wetread.audit.variants import sampled
from wetread.datasets.manifest import Manifest, load_manifest
from wetread.errors import ImageRefused, SplitRefused, expected
from wetread.evaluation.auroc import auroc_estimate
from wetread.evaluation.intervals import proportion
from wetread.imaging import find_images, load_image
from wetread.models.card import ReaderCard
from wetread.models.predict import Reader
from wetread.runtime import in_order, thread_count
from wetread.training.data import Progress
from wetread.types import Estimate, GateResult, Image

__all__ = ["Gate", "judge_outside", "outside_files"]

Gate = Callable[[ReaderCard, Image, float | None], GateResult]
"""Decides whether a reader was built for an image, given the distance of its features."""

CODE = "T12"
OWN_LIMIT = 300
NEAR_LIMIT = 200
MINIMUM_OWN = 50
PER_KIND = 12
"""Images of each kind of junk, and own films altered in each way."""
_TURNED = ("on its side", "upside down")
_PLURALS = {"negative": "negatives", "page": "pages", "photograph": "photographs", "head slice": "head slices"}
_BATCH = 8
_SEED = 12
_SHOWN = 5
"""Films in a strip."""


@dataclass(frozen=True)
class _Seen:
    """What the gate made of one image; ``kind`` groups images, ``patient`` counts them."""

    kind: str
    patient: str
    distance: float
    refused: bool
    thumb: NDArray[np.float32]


def outside_files(given: Path | None) -> list[Path]:
    """The images of a data set (its folder or table) or of a plain folder; none for None.

    Raises:
        DatasetRefused: a table that cannot be read.
        ImageRefused: a folder without images.
    """
    if given is None:
        return []
    table = given.suffix in (".parquet", ".csv") or (given / "manifest.parquet").is_file()
    if not table:
        return find_images([given])
    manifest = load_manifest(given)
    return [manifest.path_of(str(path)) for path in manifest.table["path"]]


def judge_outside(
    reader: Reader,
    manifest: Manifest,
    gate: Gate,
    limits: Thresholds,
    *,
    split: str | None = "test",
    near: Sequence[Path] = (),
    progress: Progress | None = None,
) -> tuple[AuditLine, dict[str, bytes]]:
    """Answer T12; ``near``: films of another data set, of which at most 200 are drawn.

    PASS: distances tell far and near images from own ones well enough, junk is refused and own films are not. FAIL:
    far ones are not told apart. NOT ASSESSABLE: a reader without a gate. Returns the line and its pictures.
    """
    line = AuditLine(
        code=CODE,
        question=QUESTIONS[CODE],
        answer="NOT ASSESSABLE",
        sentence="The reader has no gate: it answers whatever it is shown.",
        thresholds=limits.of("t12_far_pass", "t12_near_pass", "t12_far_fail", "t12_junk_pass", "t12_own_pass"),
        cure="Train it again with its gate.",
    )
    if reader.card.gate is None or reader.statistics is None:
        return line, {}
    films = _Sources(reader, gate, progress)
    own = films.watched("reading its own films", _own(manifest, split))
    if len(own) < MINIMUM_OWN:
        told = f"{len(own)} films of its own are too few to compare with."
        return line.model_copy(update={"sentence": told, "cure": f"Assess at least {MINIMUM_OWN} films."}), {}
    skipped: list[str] = []
    found = _Found(
        own,
        films.watched("reading junk", chain(_junk(), _altered(manifest, split, "negative"))),
        films.watched("reading turned films", chain(*(_altered(manifest, split, kind) for kind in _TURNED))),
        films.watched("reading films from elsewhere", _near(near, skipped)),
    )
    answer = found.answer(limits)
    return illustrated(
        line,
        _pictures(found),
        answer=answer,
        sentence=found.sentence(),
        n=len(own),
        figures=tuple(found.figures()),
        notes=tuple(found.notes(len(skipped))),
        cure=found.cure(answer, limits),
    )


@dataclass(frozen=True)
class _Source:
    """One image on its way to the gate: its kind, whose it is, and how to get it."""

    kind: str
    patient: str
    load: Callable[[], Image | None]


@dataclass(frozen=True)
class _Sources:
    reader: Reader
    gate: Gate
    progress: Progress | None

    def watched(self, stage: str, sources: Iterable[_Source]) -> list[_Seen]:
        """Show images to reader and gate, a few at a time; what cannot be loaded is left out."""
        asked = list(sources)
        seen: list[_Seen] = []
        for start in range(0, len(asked), _BATCH):
            block = asked[start : start + _BATCH]
            images = list(in_order(lambda one: one.load(), block, thread_count()))
            there = [(one, image) for one, image in zip(block, images, strict=True) if image is not None]
            seen += self._seen(there) if there else []
            if self.progress:
                self.progress(stage, min(start + _BATCH, len(asked)), len(asked))
        return seen

    def _seen(self, there: Sequence[tuple[_Source, Image]]) -> Iterator[_Seen]:
        reader = self.reader
        images = [image for _, image in there]
        masks = reader.organ_masks(images)
        distances = reader.distances(reader.forward(reader.prepare(images, masks), 1))
        if distances is None:
            return
        for number, (one, image) in enumerate(there):
            distance = float(distances[number])
            found = masks is None or reader.guide is None or bool(masks[number][reader.guide.spec.organ].any())
            passed = found and self.gate(reader.card, image, distance).passed
            thumb = image.pixels[:: max(1, image.pixels.shape[0] // 256), :: max(1, image.pixels.shape[1] // 256)]
            yield _Seen(one.kind, one.patient, distance if np.isfinite(distance) else np.inf, not passed, thumb.copy())


def _own(manifest: Manifest, split: str | None) -> Iterator[_Source]:
    table = manifest.table if split is None else manifest.table[manifest.table["split"] == split]
    if not len(table):
        raise SplitRefused(expected(f"images in the split {split!r}", "none", "name another --split"))
    rows = sampled(table, OWN_LIMIT, _SEED)
    for path, patient in zip(rows["path"].astype(str), rows["patient"].fillna(rows["path"]).astype(str), strict=True):
        yield _Source("own", patient, partial(load_image, manifest.path_of(path)))


def _junk() -> Iterator[_Source]:
    for kind in JUNK:
        for number in range(PER_KIND):
            rng = np.random.default_rng([_SEED, len(kind), *kind.encode(), number])
            yield _Source(kind, f"\x00{kind} {number}", partial(junk_image, kind, rng))


def _altered(manifest: Manifest, split: str | None, kind: str) -> Iterator[_Source]:
    for one in islice(_own(manifest, split), PER_KIND):
        yield _Source(kind, one.patient, partial(_turned, kind, one.load))


def _turned(kind: str, load: Callable[[], Image | None]) -> Image | None:
    image = load()
    return None if image is None else altered(kind, image)


def _near(files: Sequence[Path], skipped: list[str]) -> Iterator[_Source]:
    def load(path: Path) -> Image | None:
        try:
            return load_image(path)
        except ImageRefused:
            skipped.append(path.name)
            return None

    order = np.random.default_rng(_SEED).permutation(len(files))[:NEAR_LIMIT]
    for at in sorted(order):
        yield _Source("near", f"\x00near {at}", partial(load, files[at]))


@dataclass(frozen=True)
class _Found:
    """What the gate made of the four groups of images."""

    own: list[_Seen]
    junk: list[_Seen]
    turned: list[_Seen]
    near: list[_Seen]

    @cached_property
    def far_auroc(self) -> Estimate:
        """How well the distance tells junk from own films."""
        return self._auroc(self.junk)

    @cached_property
    def near_auroc(self) -> Estimate | None:
        """How well the distance tells films from elsewhere from own ones; None where there are none."""
        return self._auroc(self.near) if self.near else None

    def _auroc(self, others: list[_Seen]) -> Estimate:
        together = self.own + others
        far = np.repeat([0, 1], [len(self.own), len(others)])
        return auroc_estimate([one.distance for one in together], far, [one.patient for one in together])

    @staticmethod
    def refused(group: list[_Seen]) -> Estimate:
        """Share that the whole gate refuses."""
        return proportion([one.refused for one in group], [one.patient for one in group])

    def answer(self, limits: Thresholds) -> Answered:
        """The verdict; without films from elsewhere it is never a pass."""
        far = self.far_auroc.value or 0.0
        if far < limits.t12_far_fail:
            return "FAIL"
        near = -1.0 if self.near_auroc is None else self.near_auroc.value or 0.0
        good = (
            far >= limits.t12_far_pass,
            near >= limits.t12_near_pass,
            (self.refused(self.junk).value or 0.0) >= limits.t12_junk_pass,
            (self.refused(self.own).value or 0.0) <= limits.t12_own_pass,
        )
        return "PASS" if all(good) else "WARN"

    @cached_property
    def answered(self) -> tuple[str, float]:
        """The kind of junk that is answered most, and the share of it that is."""
        shares = {kind: 1 - (self.refused(group).value or 0.0) for kind, group in _by_kind(self.junk)}
        kind = max(shares, key=lambda one: shares[one])
        return kind, shares[kind]

    def sentence(self) -> str:
        """What a clinician reads."""
        junk, own = self.refused(self.junk).value or 0, self.refused(self.own).value or 0
        told = f"It refuses {junk:.1%} of junk and {own:.1%} of the films that it was built for."
        kind, share = self.answered
        if share:
            told += f" It answers {share:.0%} of the {_PLURALS.get(kind, kind)}."
        if self.near_auroc is None:
            return f"{told} Films from elsewhere were not tried."
        return f"{told} Of films from elsewhere it refuses {self.refused(self.near).value or 0:.0%}."

    def figures(self) -> Iterator[AuditFigure]:
        """Two AUROCs, and the share refused of each group and kind."""
        yield AuditFigure(what="AUROC of the distance, junk against own films", estimate=self.far_auroc)
        if self.near_auroc is not None:
            yield AuditFigure(
                what="AUROC of the distance, films from elsewhere against own ones", estimate=self.near_auroc
            )
            yield AuditFigure(what="refused: films from elsewhere", estimate=self.refused(self.near))
        yield AuditFigure(what="refused: own films", estimate=self.refused(self.own))
        yield AuditFigure(what="refused: all junk", estimate=self.refused(self.junk))
        for kind, group in _by_kind(self.junk + self.turned):
            yield AuditFigure(what=f"refused: {kind}", estimate=self.refused(group))

    def notes(self, skipped: int) -> Iterator[str]:
        """How to read the figures."""
        yield (
            f"Junk is {len(self.junk)} images drawn for this audit: {', '.join(JUNK)}, and negatives of its own films. "
            "They say nothing in a header, so only their look and their features count."
        )
        yield "Own films turned by a quarter and by a half are shown too, and decide nothing."
        if self.near_auroc is None:
            yield "Whether it knows films of another kind, such as adults for a reader of children, is not assessable."
        if skipped:
            yield f"{skipped} files from elsewhere could not be read."

    def cure(self, answer: Answered, limits: Thresholds) -> str:
        """What would change the answer."""
        if answer == "PASS":
            return ""
        if answer == "FAIL" or (self.refused(self.junk).value or 0.0) < limits.t12_junk_pass:
            return "Have somebody look at what comes in; hand in DICOM, whose header the gate checks too."
        if self.near_auroc is None:
            return "Name films of another kind with --outside."
        return "Train it on films like those that it is to read, and set the gate's limit on them."


def _by_kind(group: list[_Seen]) -> Iterator[tuple[str, list[_Seen]]]:
    for kind in dict.fromkeys(one.kind for one in group):
        yield kind, [one for one in group if one.kind == kind]


def _pictures(found: _Found) -> Pictures:
    """Junk that was answered, the nearest first, and own films that were refused: (caption, PNG) by name."""
    let_in = sorted((one for one in found.junk if not one.refused), key=lambda one: one.distance)
    kept_out = sorted((one for one in found.own if one.refused), key=lambda one: -one.distance)
    pictures = {}
    for name, caption, group in (
        ("t12-1.png", "junk that it answers; feature distance below", let_in),
        ("t12-2.png", "films of its own that it refuses; feature distance below", kept_out),
    ):
        if group:
            panels = [(one.thumb, f"{one.kind}: {one.distance:.2f}") for one in group[:_SHOWN]]
            pictures[name] = (caption, strip_png(panels))
    return pictures
