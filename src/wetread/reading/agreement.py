"""Cardiomegaly twice: by the ruler and by the classifier, and whether both say the same.

The rule of the ruler: a heart wider than half the chest is enlarged (Danzer, The cardiothoracic ratio: an index of
cardiac enlargement, Am J Med Sci 1919;157:513). It holds for PA films of adults. In an AP film the heart lies
further from the detector and its shadow is larger (Chon et al., J Korean Med Sci 2011;26:1446): there the ratio is
shown and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wetread.reading.measures import CARDIOTHORACIC_RATIO, ORGAN_NAMES
from wetread.types import Agreement, Answer, ImageFacts, LabelReading, Measure

__all__ = ["ADULT_YEARS", "LABEL", "LIMIT", "SOURCE", "agreement_on", "mask_cautions", "ratio_says", "told_apart"]

LABEL = "cardiomegaly"
"""The one label that has a ruler; upper and lower case are the same."""

LIMIT = 0.5
"""A ratio above it means an enlarged heart; exactly one half does not."""

SOURCE = "Danzer 1919, Am J Med Sci 157:513; PA films of adults"

ADULT_YEARS = 18
"""Children have wider hearts for their chest; a stated age below this is a child's."""

_MOST_DECIMALS = 4


def agreement_on(
    labels: Sequence[LabelReading], measures: Sequence[Measure], facts: ImageFacts, cautions: Sequence[str] = ()
) -> Agreement | None:
    """Compare the ratio among ``measures`` with the answer among ``labels``.

    ``facts`` decide whether the limit holds: a stated view other than PA or a stated age below 18 years speak
    against it; what is not stated becomes a caution, after those given. None where the reader has no label
    cardiomegaly, or ``measures`` name no ratio because the segmenter does not look for heart and lungs.
    """
    label = next((one for one in labels if one.label.strip().casefold() == LABEL), None)
    ratio = next((one for one in measures if one.name == CARDIOTHORACIC_RATIO), None)
    if label is None or ratio is None:
        return None
    said, reason = ratio_says(ratio, facts)
    answered: Answer | None = None if label.decision == "withheld" else label.decision
    if said and answered is None:
        reason = "the classifier gave no answer"
    compared = _compared(ratio.value, said, answered)
    return Agreement(
        label=label.label,
        measure=CARDIOTHORACIC_RATIO,
        value=ratio.value,
        limit=LIMIT,
        source=SOURCE,
        measure_says=said,
        classifier_says=answered,
        agree=said == answered if compared else None,
        reason=reason,
        cautions=(*(() if ratio.value is None else cautions), *(_unstated(facts) if said else ())),
        sentence=compared or _not_compared(ratio.value, reason),
    )


def ratio_says(ratio: Measure, facts: ImageFacts) -> tuple[Answer | None, str]:
    """Return what a cardiothoracic ratio says of the heart, or None with the reason."""
    if ratio.value is None:
        return None, ratio.reason
    view = _words(facts.view)
    if view and not _is_pa(view):
        more = ", which shows the heart larger" if view.startswith(("AP", "ANTERO")) else ""
        return None, f"the limit holds for PA films, and the file states the view {view}{more}"
    if facts.age_years is not None and facts.age_years < ADULT_YEARS:
        return None, "the limit holds for adults, and the file states the age of a child"
    return ("positive" if ratio.value > LIMIT else "negative"), ""


def mask_cautions(odd: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """One sentence for each odd mask that the ratio leans on; ``odd``: what is odd about each, by organ."""
    return tuple(
        f"The mask of the {ORGAN_NAMES[organ]} is odd ({', '.join(flags)}); the ratio leans on it."
        for organ, flags in odd.items()
        if flags
    )


def _words(view: str | None) -> str:
    return (view or "").strip().upper()


def _is_pa(view: str) -> bool:
    return view.startswith(("PA", "POSTERO"))


def _unstated(facts: ImageFacts) -> tuple[str, ...]:
    """What would speak against the limit if the file stated it."""
    cautions = []
    if not _words(facts.view):
        cautions.append("The file states no view; in an AP film the ratio would be too large.")
    if facts.age_years is None:
        cautions.append("The file states no age; the limit holds for adults.")
    return tuple(cautions)


def _compared(value: float | None, said: Answer | None, answered: Answer | None) -> str:
    """The sentence where both say something; empty where one does not."""
    if value is None or said is None or answered is None:
        return ""
    number, limit = told_apart(value, LIMIT)
    above = "above" if said == "positive" else "not above"
    finds = "the classifier finds cardiomegaly" if answered == "positive" else "the classifier finds no cardiomegaly"
    end = f"and {finds}: they agree" if said == answered else f"but {finds}: they disagree"
    return f"The cardiothoracic ratio is {number}, {above} the limit of {limit}, {end}."


def _not_compared(value: float | None, reason: str) -> str:
    if value is None:
        return f"There is no cardiothoracic ratio to compare with the classifier, because {reason}."
    return f"The cardiothoracic ratio is {value:.2f}; it is not compared with the classifier, because {reason}."


def told_apart(value: float, limit: float) -> tuple[str, str]:
    """Write both with two decimals, or as many (up to four) as make them read differently."""
    for decimals in range(2, _MOST_DECIMALS + 1):
        pair = f"{value:.{decimals}f}", f"{limit:.{decimals}f}"
        if pair[0] != pair[1]:
            return pair
    return f"{value:.2f}", f"{limit:.2f}"
