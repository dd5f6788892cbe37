"""What is planted into which images: the specification, and who is drawn to carry it.

Decided here: what belongs together (a patient) carries it whole or not at all; whether it does follows from the
seed and the patient alone, so that another image, another order or another kind changes nobody else's draw.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from wetread.datasets.columns import SPLITS
from wetread.errors import UsageError, expected
from wetread.types import Record

__all__ = ["KINDS", "ORGAN_KINDS", "RANDOM", "Kind", "PlantSpec", "carriers", "generator_of"]

Kind = Literal[
    "corner-marker",
    "border",
    "text",
    "exposure",
    "sharpness",
    "noise",
    "jpeg",
    "resolution",
    "organ-blob",
    "organ-texture",
]

KINDS: dict[Kind, str] = {
    "corner-marker": "a lead letter or disc in an upper corner; size and contrast",
    "border": "dark collimation at the sides; width",
    "text": "a burned-in line of text at the edge; size and contrast",
    "exposure": "a darker film; gamma",
    "sharpness": "a blurred film; sigma of the blur",
    "noise": "a grainy film; level of the noise",
    "jpeg": "JPEG compression; its quality",
    "resolution": "fewer pixels; scale",
    "organ-blob": "a soft density inside the organ; size and contrast",
    "organ-texture": "a reticular pattern inside the organ; contrast",
}
"""What each kind is, and what its strength grades. The figures stand with each edit in ``plant_edits``."""

ORGAN_KINDS: tuple[Kind, ...] = ("organ-blob", "organ-texture")
"""True signals: they change nothing outside the mask of the organ."""

RANDOM = "random"
"""As a label: every patient carries it with probability 0.5, whatever the labels."""


class PlantSpec(Record):
    """One artificial shortcut, or one true signal in an organ, and how it goes with a label.

    ``strength`` in [0, 1]: 0 changes no pixel, 1 is the most that still looks like a film (:data:`KINDS` says what
    grows). ``correlation`` in [0.5, 1]: the probability that a patient of class ``label`` carries it; all others
    carry it with probability 1 - ``correlation``, so that 0.5 is independent. ``label`` None is the positive class
    of a binary data set; :data:`RANDOM` is the control. ``splits``: only their images are drawn, empty for all.
    ``organ``: whose masks the organ kinds need. ``keep_size``: kind ``resolution`` scales back to the size before;
    else Rows x Columns really change.

    Raises :class:`UsageError` for a value out of its range and for a kind or split that does not exist.
    """

    kind: Kind
    strength: float = 0.5
    correlation: float = 0.9
    label: str | None = None
    splits: tuple[str, ...] = ()
    seed: int = 0
    organ: str = "lungs"
    keep_size: bool = False

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind in KINDS:
            return kind
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.4)
        cure = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(KINDS)}"
        raise UsageError(expected("a kind that can be planted", f"'{kind}'", cure))

    @field_validator("strength")
    @classmethod
    def _graded(cls, strength: float) -> float:
        return _in_range("a strength", strength, 0.0, "0 plants nothing, 1 the most")

    @field_validator("correlation")
    @classmethod
    def _not_inverted(cls, correlation: float) -> float:
        return _in_range("a correlation", correlation, 0.5, "to plant it into the other class, name that as the label")

    @field_validator("splits")
    @classmethod
    def _known_splits(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        for split in splits:
            if split not in SPLITS:
                raise UsageError(expected(f"splits among {', '.join(SPLITS)}", f"'{split}'", "use one of them"))
        return splits

    @field_validator("seed")
    @classmethod
    def _usable_seed(cls, seed: int) -> int:
        if seed < 0:
            raise UsageError(expected("a seed of at least 0", seed, "choose another"))
        return seed

    @property
    def needs_mask(self) -> bool:
        """Whether the kind changes an organ, which a mask must show."""
        return self.kind in ORGAN_KINDS

    @property
    def resizes(self) -> bool:
        """Whether images get another number of rows and columns."""
        return self.kind == "resolution" and not self.keep_size and self.strength > 0

    def probability(self, positive: bool) -> float:
        """With which probability a patient carries it."""
        if self.label == RANDOM:
            return 0.5
        return self.correlation if positive else 1.0 - self.correlation


def carriers(patients: Sequence[str], positive: NDArray[np.bool_], spec: PlantSpec) -> NDArray[np.bool_]:
    """Who carries it: bool (n,), the same for all images of one patient.

    ``patients``: a name for each of n images; ``positive``: bool (n,). A patient is positive where one image is.
    """
    ill = {name for name, yes in zip(patients, positive, strict=True) if yes}
    drawn = {name: _uniform(spec.seed, name) < spec.probability(name in ill) for name in set(patients)}
    return np.array([drawn[name] for name in patients], np.bool_)


def generator_of(spec: PlantSpec, image: str) -> np.random.Generator:
    """The generator of one image: place, words and noise. It does not depend on the strength."""
    return np.random.default_rng([spec.seed, _digest(b"image", image)])


def _uniform(seed: int, name: str) -> float:
    """A number from [0, 1) that seed and name decide."""
    return _digest(b"carrier", f"{seed}\0{name}") / 2.0**64


def _digest(purpose: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=purpose).digest(), "big")


def _in_range(what: str, got: float, low: float, cure: str) -> float:
    if not low <= got <= 1.0:  # also refuses NaN
        raise UsageError(expected(f"{what} from {low:g} to 1", got, cure))
    return got
