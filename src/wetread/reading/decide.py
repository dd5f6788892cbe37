"""From probabilities to decisions: which operating point, what to say where there is none, which answers stay open."""

from __future__ import annotations

from collections.abc import Sequence

from wetread.errors import UsageError, expected
from wetread.evaluation.conformal import set_of
from wetread.evaluation.operating import default_operating_point
from wetread.models.card import ReaderCard
from wetread.types import LabelReading, OperatingPoint, PredictionSet

__all__ = ["Decider", "prediction_set"]

_NO_POINT = "No threshold was chosen on validation; 0.5 was used."
_NOT_NAMED = "This label has no operating point of that name."
_MOST_PROBABLE = "The most probable class; no threshold was chosen on validation."


class Decider:
    """Decide with the operating points of ``card``; ``name`` None means its default.

    Raises:
        UsageError: the card has no operating point of that name; the message lists those it has.
    """

    def __init__(self, card: ReaderCard, name: str | None = None) -> None:
        known = sorted({point.name for point in card.operating_points})
        if name is not None and name not in known:
            raise UsageError(
                expected(
                    f"an operating point of {card.name}",
                    repr(name),
                    f"choose one of: {', '.join(known) or 'none; leave --operating-point out'}",
                )
            )
        self._card = card
        self._name = name

    def decide(self, probabilities: Sequence[float]) -> tuple[LabelReading, ...]:
        """Return one reading for each label; ``probabilities`` are calibrated, in the card's order.

        An image is positive for a label when its probability is at or above the threshold.
        """
        card = self._card
        if card.task == "multiclass" and not card.operating_points:
            best = max(range(len(card.labels)), key=lambda i: probabilities[i])
            return tuple(
                LabelReading(
                    label=label,
                    probability=float(probability),
                    decision="positive" if i == best else "negative",
                    reason=_MOST_PROBABLE,
                )
                for i, (label, probability) in enumerate(zip(card.labels, probabilities, strict=True))
            )
        return tuple(self._one(label, float(p)) for label, p in zip(card.labels, probabilities, strict=True))

    def _one(self, label: str, probability: float) -> LabelReading:
        point = self._card.operating_point(label, self._name)
        if point is None and self._name is not None:
            return LabelReading(label=label, probability=probability, decision="withheld", reason=_NOT_NAMED)
        reason = "" if point else _NO_POINT
        chosen: OperatingPoint = point or default_operating_point(label)
        return LabelReading(
            label=label,
            probability=probability,
            decision="positive" if probability >= chosen.threshold else "negative",
            operating_point=chosen,
            reason=reason,
        )

    def withhold(self, reason: str) -> tuple[LabelReading, ...]:
        """Return readings without probability for an image that the gate refused."""
        return tuple(
            LabelReading(label=label, probability=None, decision="withheld", reason=reason)
            for label in self._card.labels
        )


def prediction_set(card: ReaderCard, labels: Sequence[LabelReading]) -> PredictionSet | None:
    """Return the answers that the card's conformal quantiles do not rule out; ``labels`` in the card's order.

    None for a card without quantiles and for an image without probabilities.
    """
    probabilities = [label.probability for label in labels if label.probability is not None]
    if card.conformal is None or len(probabilities) < len(card.labels):
        return None
    return set_of(card.conformal, probabilities, card.task, card.classes)
