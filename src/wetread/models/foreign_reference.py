"""Whether an imported reader gives what the framework it comes from gave, over the whole path from file to score.

Decided here: logits are compared where the network gives logits, probabilities elsewhere; and where they differ, which
of the usual ways to feed a network would have reproduced them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wetread.errors import BundleRefused, WetreadError, expected
from wetread.models.card import ForeignSpec, InputSpec, ReferenceCheck
from wetread.models.foreign_card import MAX_TOLERANCE, Pair, Pairs
from wetread.models.foreign_networks import LabelScores, foreign_spec
from wetread.models.networks import ChannelScale
from wetread.models.predict import Reader, probabilities_of

__all__ = ["check_pairs"]

Numbers = NDArray[np.float64]

_SHOWN = 6
"""Numbers of a row that a message shows."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels, as most checkpoints were trained with."""

_SCALINGS = {
    "normalisation 'fixed' with mean 0 and std 1": (0.0, 1.0),
    "normalisation 'fixed' with mean 0.5 and std 0.5": (0.5, 0.5),
    "normalisation 'range' with range [0, 255]": (0.0, 1 / 255),
    "normalisation 'range' with range [-1024, 1024]": (0.5, 1 / 2048),
}


@dataclass(frozen=True)
class _Compared:
    """One row as the original gave it and as it was given here, (labels,)."""

    image: str
    what: Literal["outputs", "probabilities"]
    scale: Literal["logits", "probabilities"]
    wanted: Numbers
    got: Numbers

    @property
    def difference(self) -> float:
        return float(np.abs(self.wanted - self.got).max())

    def tells(self, tolerance: float) -> bool:
        """Whether a difference beyond the tolerance would show: probabilities near 0 and 1 hardly move."""
        return self.scale == "logits" or bool((self.wanted * (1 - self.wanted)).max() >= tolerance / MAX_TOLERANCE)


def check_pairs(reader: Reader, pairs: Pairs, tolerance: float) -> ReferenceCheck:
    """Read the reference images and compare; ``tolerance`` is on logits or probabilities, whichever the network gives.

    Raises:
        BundleRefused: other numbers; the message shows both and what to change.
    """
    spec = foreign_spec(reader.card)
    _refuse_other_lengths(pairs, spec, reader)
    try:
        rows = list(_rows(reader, pairs))
    except WetreadError as error:
        raise BundleRefused(str(error)) from error
    worst = max(rows, key=lambda row: row.difference if np.isfinite(row.difference) else np.inf)
    if not worst.difference <= tolerance:
        raise BundleRefused(
            expected(
                f"{worst.what} {_text(worst.wanted)} for {worst.image}",
                f"{_text(worst.got)} (they differ by {worst.difference:.2g}, tolerance {tolerance:g})",
                _cure(reader, pairs, rows, tolerance),
            )
        )
    _refuse_blunt(rows, tolerance)
    exact = [row for row in rows if row.scale == "logits"]
    return ReferenceCheck(
        images=len(pairs),
        compared="logits" if exact else "probabilities",
        largest_difference=max(row.difference for row in exact or rows),
        tolerance=tolerance,
        resampled=_resampled(reader, pairs),
    )


def _refuse_blunt(rows: list[_Compared], tolerance: float) -> None:
    if not any(row.tells(tolerance) for row in rows):
        raise BundleRefused(
            expected(
                f"a reference that tells a difference of {MAX_TOLERANCE:g} logits",
                f"probabilities of {_text(rows[0].wanted)}",
                "give an image that the original is less sure of, or its logits",
            )
        )


def _refuse_other_lengths(pairs: Pairs, spec: ForeignSpec, reader: Reader) -> None:
    for pair in pairs:
        for what, values, wanted in (
            ("outputs", pair.outputs, spec.outputs),
            ("probabilities", pair.probabilities, len(reader.labels)),
        ):
            if values is not None and values.shape != (wanted,):
                raise BundleRefused(
                    expected(
                        f"{wanted} {what} for {pair.image.facts.name}",
                        len(values),
                        "give all outputs of the network, or one probability for each label",
                    )
                )


def _rows(reader: Reader, pairs: Pairs) -> Iterator[_Compared]:
    """Compare what is known of each pair."""
    for pair in pairs:
        forward = reader.forward(reader.prepare([pair.image]), views=1)
        logits, probabilities = forward.logits.numpy().astype(np.float64), reader.probabilities(forward)
        name = pair.image.facts.name
        if pair.outputs is not None:
            wanted = _logits(reader, pair.outputs)
            if foreign_spec(reader.card).gives == "logits":
                yield _Compared(name, "outputs", "logits", wanted[0], logits[0])
            else:
                moved = probabilities_of(wanted, 1.0, softmax=reader.softmax)
                yield _Compared(name, "outputs", "probabilities", moved[0], probabilities[0])
        if pair.probabilities is not None:
            yield _Compared(name, "probabilities", "probabilities", pair.probabilities, probabilities[0])


def _logits(reader: Reader, outputs: Numbers) -> Numbers:
    """Turn outputs of the original (outputs,) into logits (1, labels), as those of the network are."""
    scores = LabelScores(foreign_spec(reader.card), reader.card.task)
    return np.asarray(scores(torch.from_numpy(outputs[None])).numpy(), dtype=np.float64)


def _resampled(reader: Reader, pairs: Pairs) -> bool:
    size = (reader.input.height, reader.input.width)
    return any(pair.image.pixels.shape != size for pair in pairs)


def _text(values: Numbers) -> str:
    more = ", …" if len(values) > _SHOWN else ""
    return f"[{', '.join(f'{value:.5g}' for value in values[:_SHOWN])}{more}]"


def _cure(reader: Reader, pairs: Pairs, rows: list[_Compared], tolerance: float) -> str:
    wrong = {row.what for row in rows if not row.difference <= tolerance}
    if wrong == {"probabilities"} and any(row.what == "outputs" for row in rows):
        return "the outputs are reproduced: check task and columns in the card"
    found = _reproducing(reader, pairs, tolerance)
    if found is not None:
        return f"{found} reproduces them: correct [input] in the card"
    size = f"{reader.input.height} x {reader.input.width}"
    hint = f"; a reference image of {size} pixels needs no resampling" if _resampled(reader, pairs) else ""
    return f"check normalisation, fit, channels and columns in the card{hint}"


def _reproducing(reader: Reader, pairs: Pairs, tolerance: float) -> str | None:
    """Name one of the usual ways to feed a network that gives the reference outputs; None if none does."""
    first: Pair = pairs[0]
    kept = reader.networks[0].scale
    try:
        for what, spec, scale in _ways(reader.input, kept):
            reader.networks[0].scale = scale
            other = Reader(reader.card.model_copy(update={"input": spec}), reader.networks)
            if max(row.difference for row in _rows(other, (first,))) <= tolerance:
                return what
    except WetreadError:
        return None  # a graph that cannot take it; the numbers in the message say what is wrong
    finally:
        reader.networks[0].scale = kept
    return None


def _ways(spec: InputSpec, scale: ChannelScale | None) -> Iterator[tuple[str, InputSpec, ChannelScale | None]]:
    """Other normalisations, then other fits."""
    for what, (mean, std) in _SCALINGS.items():
        yield what, spec.model_copy(update={"standardise": "fixed", "mean": mean, "std": std}), None
    if spec.channels == 3:
        plain = spec.model_copy(update={"standardise": "fixed", "mean": 0.0, "std": 1.0})
        yield (
            f"normalisation 'fixed' with mean {list(_IMAGENET[0])} and std {list(_IMAGENET[1])}",
            plain,
            ChannelScale(*_IMAGENET),
        )
    yield "normalisation 'zscore'", spec.model_copy(update={"standardise": "zscore"}), None
    for fit in ("stretch", "pad", "crop"):
        yield f"fit '{fit}'", spec.model_copy(update={"fit": fit}), scale
