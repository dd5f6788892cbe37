"""Facts turned into the words and geometry that the templates place: names, orders, alt texts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from wetread.audit.result import GROUPS, AuditLine
from wetread.datasets.check_result import SEVERITIES, Finding
from wetread.datasets.columns import NEGATIVE_WORDS
from wetread.reading.agreement import told_apart
from wetread.reporting.facts import most_urgent, picture_type
from wetread.reporting.numbers import MISSING, percent, percent_beside
from wetread.types import Agreement, Estimate, ImageFacts, LabelReading, Measure, Neighbour, Span

__all__ = [
    "CaseTag",
    "ScaleBar",
    "SplitAnswers",
    "answer_class",
    "audit_groups",
    "by_severity",
    "by_urgency",
    "case_tags",
    "data_uri",
    "film_words",
    "group_rows",
    "image_facts",
    "is_failed",
    "metric_name",
    "most_urgent",
    "organ_words",
    "plot_title",
    "probability_and_threshold",
    "scale_bar",
    "sentence",
    "split_answers",
    "stage_facts",
    "svg_uri",
    "unit_words",
    "value_and_limit",
    "verdict_class",
    "widths_of",
    "with_code",
]

_OVERLAP_NAMES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "average_distance": "Average distance"}
_METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "ECE",
    "log_loss": "Log loss",
    "slope": "Calibration slope",
    "intercept": "Calibration intercept",
    "ppv": "PPV",
    "npv": "NPV",
    "ppv_at_prevalence": "PPV at stated prevalence",
    "npv_at_prevalence": "NPV at stated prevalence",
    "f1": "F1",
    "macro_f1": "Macro F1",
    "kappa": "Cohen's kappa",
    "mcc": "MCC",
}
_PLOT_KINDS = {
    "roc": "ROC curve",
    "pr": "Precision-recall curve",
    "reliability": "Reliability diagram",
    "histogram": "Spread of probabilities",
    "confusion": "Confusion matrix",
}
_DECISION_RANK = {"positive": 0, "negative": 1, "withheld": 2}
_FULL_CARDS = 2
_BAR_LENGTHS_MM = (10, 20, 50, 100, 200)
_BAR_SHARE = 0.3
"""The ruler is the longest of these lengths that takes no more than this share of the width."""


def data_uri(data: bytes) -> str:
    """Return PNG or JPEG bytes as a data: URI; raise WetreadError for any other kind."""
    return f"data:{picture_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def organ_words(organ: str) -> str:
    """Return an organ's name as people write it: ``lung_left`` is the left lung."""
    known = {"lung_left": "left lung", "lung_right": "right lung"}
    return known.get(organ, organ.replace("_", " "))


def unit_words(unit: str) -> str:
    """Return a unit as it follows a number: with its space, superscript, and nothing for a ratio."""
    return "" if unit == "1" else "\u202f" + unit.replace("cm2", "cm\u00b2")


def svg_uri(svg: str) -> str:
    """Return SVG text as a data: URI. As a picture it can run no script and load nothing."""
    if "xmlns=" not in svg:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"


def with_code(text: str) -> Markup:
    """Escape a sentence and set what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one backtick too many: nobody knows where the code ends
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def by_urgency(labels: Iterable[LabelReading]) -> list[LabelReading]:
    """Return positives first, then negatives, then withheld, each by falling probability."""
    return sorted(labels, key=lambda x: (_DECISION_RANK[x.decision], -(x.probability or 0.0)))


@dataclass(frozen=True, slots=True)
class SplitAnswers:
    """Answers with a card each, and negatives that share one."""

    leading: list[LabelReading]
    others: list[LabelReading]


def split_answers(labels: list[LabelReading]) -> SplitAnswers:
    """Give up to two labels a card each; of more, gather the negatives (with a probability) in one."""
    if len(labels) <= _FULL_CARDS:
        return SplitAnswers(labels, [])
    quiet = [x.decision == "negative" and x.probability is not None for x in labels]
    if all(quiet):
        quiet[0] = False
    return SplitAnswers(
        [x for x, is_quiet in zip(labels, quiet, strict=True) if not is_quiet],
        [x for x, is_quiet in zip(labels, quiet, strict=True) if is_quiet],
    )


def probability_and_threshold(label: LabelReading) -> tuple[str, str]:
    """Return both as percents that read differently where they are different."""
    if label.probability is None or label.operating_point is None:
        return percent(label.probability), ""
    return percent_beside(label.probability, label.operating_point.threshold)


def value_and_limit(agreement: Agreement) -> tuple[str, str]:
    """Return a measure and its limit with decimals that tell them apart where they differ."""
    if agreement.value is None:
        return MISSING, ""
    return told_apart(agreement.value, agreement.limit)


def widths_of(agreement: Agreement, measures: Iterable[Measure]) -> tuple[Span, ...]:
    """Return where the measure that is compared was taken; empty where it has no value."""
    return next((one.spans for one in measures if one.name == agreement.measure), ())


@dataclass(frozen=True, slots=True)
class CaseTag:
    """A label of a similar case as a pill shows it: ``tone`` is positive, negative, info or withheld."""

    text: str
    tone: str


def case_tags(case: Neighbour, classes: Sequence[str], task: str) -> list[CaseTag]:
    """Return the labels of a similar case, or a word where it has none or they are unknown."""
    if case.labels is None:
        return [CaseTag("label unknown", "withheld")]
    if not case.labels:
        return [CaseTag("none of the labels", "negative")]
    return [CaseTag(label, _tone(label, classes, task)) for label in case.labels]


def _tone(label: str, classes: Sequence[str], task: str) -> str:
    """Two classes are positive and negative; of several only what means *nothing found* is negative."""
    if task == "binary" and classes:
        return "negative" if label == classes[0] else "positive"
    quiet = label.strip().lower().replace(" ", "_").replace("-", "_") in NEGATIVE_WORDS
    return "negative" if quiet else "info"


def sentence(text: str) -> str:
    """Return a remark with a capital at its beginning and a stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _spacing(facts: ImageFacts) -> str | None:
    if facts.spacing_mm is None:
        return None
    row, column = facts.spacing_mm
    return f"{row:.4g} mm" if row == column else f"{row:.4g} × {column:.4g} mm (row × column)"


def image_facts(facts: ImageFacts) -> list[tuple[str, str | None]]:
    """Return (name, value) of what the file says, in reading order; absent facts are None."""
    burned = {True: "yes", False: "no", None: None}[facts.burned_in_annotation]
    return [
        ("Format", facts.format),
        ("Size", f"{facts.columns} × {facts.rows} px, {facts.bits} bit"),
        ("Photometric", facts.photometric_interpretation),
        ("Spacing", _spacing(facts)),
        ("Modality", facts.modality),
        ("Body part", facts.body_part),
        ("View", facts.view),
        ("Laterality", facts.laterality),
        ("Patient", facts.patient),
        ("Sex", facts.sex),
        ("Age", None if facts.age_years is None else f"{facts.age_years:.3g} years"),
        ("Manufacturer", facts.manufacturer),
        ("Burned-in text", burned),
        ("SHA-256", facts.sha256),
    ]


def stage_facts(facts: ImageFacts) -> str:
    """Return the line above the film, e.g. ``DX · CHEST · PA · L``; only what the file says."""
    said = (facts.modality, facts.body_part, facts.view, facts.laterality)
    return " · ".join(x for x in said if x) or facts.format


def film_words(facts: ImageFacts) -> str:
    """Return the alternative text of a film."""
    said = [x for x in (facts.modality, facts.body_part, facts.view) if x]
    return f"Film {facts.name}" + (f" ({', '.join(said)})" if said else "")


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A ruler in pixels of the image: from ``x0`` to ``x1`` at height ``y``."""

    x0: float
    x1: float
    y: float
    tick: float
    font: float
    text: str


def scale_bar(facts: ImageFacts) -> ScaleBar | None:
    """Return a ruler by the stored column spacing (0028,0030), or None where the file has none."""
    if facts.spacing_mm is None or facts.spacing_mm[1] <= 0:
        return None
    width_mm = facts.columns * facts.spacing_mm[1]
    fitting = [length for length in _BAR_LENGTHS_MM if length <= _BAR_SHARE * width_mm]
    if not fitting:
        return None
    length_px = fitting[-1] / facts.spacing_mm[1]
    x0, y = 0.035 * facts.columns, facts.rows - 0.035 * facts.columns
    return ScaleBar(
        x0=round(x0, 1),
        x1=round(x0 + length_px, 1),
        y=round(y, 1),
        tick=round(0.012 * facts.columns, 1),
        font=round(0.026 * max(facts.rows, facts.columns), 1),
        text=f"{fitting[-1] // 10} cm, stored spacing",
    )


def is_failed(audit_verdict: str) -> bool:
    """Return whether an audit verdict is a FAIL, which is watermarked on every page."""
    return audit_verdict.strip().upper().startswith("FAIL")


def answer_class(answer: str) -> str:
    """Return ``pass``, ``warn``, ``fail`` or ``none`` for the answer of one line of an audit."""
    return {"PASS": "pass", "WARN": "warn", "FAIL": "fail"}.get(answer, "none")


def audit_groups(lines: Sequence[AuditLine]) -> list[tuple[str, list[AuditLine]]]:
    """Return the lines under the headings of the page; headings without a line are left out."""
    found = [(name, [line for line in lines if line.code in codes]) for name, codes in GROUPS.items()]
    return [(name, some) for name, some in found if some]


def verdict_class(audit_verdict: str) -> str:
    """Return ``fail``, ``pass`` or ``warn`` (also for a reader that was never audited)."""
    if is_failed(audit_verdict):
        return "fail"
    return "pass" if audit_verdict.strip().upper().startswith("PASS") else "warn"


def metric_name(key: str) -> str:
    """Return the name for people: ``balanced_accuracy`` -> ``Balanced accuracy``, ``iou heart`` -> ``IoU heart``."""
    if key in _METRIC_NAMES:
        return _METRIC_NAMES[key]
    score, _, organ = key.partition(" ")
    if score in _OVERLAP_NAMES and organ:
        organ, bracket, unit = organ.partition(" (")
        return f"{_OVERLAP_NAMES[score]} {organ_words(organ)}{bracket}{unit}"
    first, _, rest = key.partition("_")
    if first == "macro" and rest:
        return f"Macro {metric_name(rest)}"
    return key.replace("_", " ").capitalize()


def plot_title(key: str) -> str:
    """Return the caption of a plot: ``roc pneumonia`` -> ``ROC curve: pneumonia``."""
    kind, _, label = key.partition(" ")
    name = _PLOT_KINDS.get(kind)
    if name is None:
        return key
    return f"{name}: {label}" if label else name


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return what blocks first; findings of one severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def group_rows(
    metrics: dict[str, dict[str, Estimate]], gaps: dict[str, dict[str, Estimate]]
) -> list[tuple[str, str, Estimate, Estimate | None]]:
    """Return (label, metric, value, gap to everybody else) of one subgroup, in order."""
    return [
        (label, key, value, gaps.get(label, {}).get(key))
        for label, values in metrics.items()
        for key, value in values.items()
    ]
