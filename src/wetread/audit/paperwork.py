"""T16, is the paperwork complete: the items of CLAIM, each filled from recorded facts, by the author, or not at all.

Source: Checklist for Artificial Intelligence in Medical Imaging, 2024 update (Tejani et al., Radiology: Artificial
Intelligence 2024;6:e240300), 44 items, here in our own words. Nothing is invented: what no record says is left to
the author, who answers by number in a TOML file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wetread.audit.result import QUESTIONS, Answered, AuditFigure, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.datasets.manifest import Manifest
from wetread.errors import UsageError, expected
from wetread.models.card import ReaderCard
from wetread.types import Estimate, Record

__all__ = ["ITEMS", "Item", "Paperwork", "load_answers", "paperwork", "paperwork_line"]

ITEMS: dict[int, str] = {
    1: "Title names the method",
    2: "Structured abstract",
    3: "Background and intended clinical role",
    4: "Aims and hypotheses",
    5: "Prospective or retrospective",
    6: "Goal of the study",
    7: "Data sources",
    8: "Who was included and excluded",
    9: "Preprocessing",
    10: "Selection of subsets",
    11: "De-identification",
    12: "Missing data",
    13: "How images were acquired",
    14: "Reference standard",
    15: "Why this reference standard",
    16: "Who annotated",
    17: "Annotation of the test set",
    18: "Variability between and within annotators",
    19: "How data were divided",
    20: "Level at which the parts are disjoint",
    21: "Sample size",
    22: "Model",
    23: "Software",
    24: "Initial weights",
    25: "Training",
    26: "Choice of the final model",
    27: "Ensemble",
    28: "Metrics",
    29: "Uncertainty and significance",
    30: "Robustness",
    31: "Explanations",
    32: "Evaluation on internal data",
    33: "Testing on external data",
    34: "Trial registration",
    35: "Flow of cases",
    36: "Demographics of each part",
    37: "Performance",
    38: "Diagnostic performance and its precision",
    39: "Failures",
    40: "Limits",
    41: "Meaning for practice",
    42: "Full protocol",
    43: "Availability of software, model and data",
    44: "Funding",
}

Status = Literal["filled", "author", "not applicable", "missing"]
_UNKNOWN = ("", "unknown", "None", "not audited")


class Item(Record):
    """One item: ``text`` says what, ``status`` whether records or the ``author`` filled it."""

    number: int
    name: str
    status: Status
    text: str


@dataclass(frozen=True)
class Paperwork:
    """All items, and what a card must not lack."""

    items: tuple[Item, ...]
    lacking: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share (0-1) of items that are filled or not applicable."""
        return sum(item.status != "missing" for item in self.items) / len(self.items)


def load_answers(path: Path) -> dict[int, str]:
    """Read the author's answers: TOML with ``item-14 = "text"``; a text that begins with ``N/A`` is a reason.

    Raises:
        UsageError: no such file, no TOML, or a key that is no item.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            expected(f"answers in TOML at {path.name}", type(error).__name__, "check path and syntax")
        ) from error
    answers: dict[int, str] = {}
    for key, text in given.items():
        number = key.removeprefix("item-")
        if not (number.isdigit() and int(number) in ITEMS and isinstance(text, str) and text.strip()):
            raise UsageError(
                expected(f"item-1 to item-{len(ITEMS)} with a text in {path.name}", repr(key), 'e.g. item-44 = "none"')
            )
        answers[int(number)] = text.strip()
    return answers


def paperwork(
    card: ReaderCard, manifest: Manifest, tested: Mapping[str, str], answers: Mapping[int, str] | None = None
) -> Paperwork:
    """Fill the items from the card, the manifest and what the audit ``tested`` (line -> sentence)."""
    facts = _from_card(card) | _from_data(manifest) | _from_audit(tested)
    given = answers or {}
    items = []
    for number, name in ITEMS.items():
        said = given.get(number)
        if said is not None:
            status: Status = "not applicable" if said.upper().startswith("N/A") else "author"
            items.append(Item(number=number, name=name, status=status, text=said))
        elif facts.get(number):
            items.append(Item(number=number, name=name, status="filled", text=facts[number]))
        else:
            items.append(Item(number=number, name=name, status="missing", text="the author must fill this"))
    lacking = tuple(name for name, value in _needed(card).items() if value in _UNKNOWN)
    return Paperwork(tuple(items), lacking)


def paperwork_line(found: Paperwork, limits: Thresholds) -> AuditLine:
    """Return the line: which share of items is answered, and what the card must not lack."""
    missing = [item for item in found.items if item.status == "missing"]
    answer: Answered = "PASS" if found.share >= limits.t16_share_pass else "WARN"
    sentence = f"{len(found.items) - len(missing)} of {len(found.items)} items are answered."
    if found.lacking:
        answer, sentence = "FAIL", f"The card says nothing of {', '.join(found.lacking)}."
    share = Estimate(value=found.share, n=len(found.items), note="a count, not a sample: no interval")
    return AuditLine(
        code="T16",
        question=QUESTIONS["T16"],
        answer=answer,
        sentence=sentence,
        n=len(found.items),
        figures=(AuditFigure(what="share of CLAIM items answered", estimate=share),),
        thresholds=limits.of("t16_share_pass"),
        notes=tuple(f"{item.number} {item.name}: {item.text}" for item in found.items),
        cure="answer the missing items in a TOML file and add --answers FILE" if missing else "",
    )


def _needed(card: ReaderCard) -> dict[str, str]:
    return {
        "intended use": card.intended_use,
        "population": card.data.population,
        "data": card.data.name,
        "limits": "; ".join(card.limits),
    }


def _from_card(card: ReaderCard) -> dict[int, str]:
    """What the card alone says; a fact that it does not hold leaves its item out."""
    data, settings = card.data, dict(card.training.get("settings", {}))
    size = f"{card.input.height}x{card.input.width}"
    found = {
        1: f"deep learning: {card.architecture}",
        3: card.intended_use,
        7: f"{data.name}, licence {data.licence}",
        9: f"{size}, {card.input.fit}, standardised {card.input.standardise}; see input in card.json",
        12: "unknown labels are left out of training and figures, never taken for negative",
        19: str(card.training.get("split", "")),
        20: "patient, study and identical image",
        21: f"{data.images} images of {data.patients} patients in training",
        22: f"{card.architecture}, input {size}, {card.networks} network(s), head {card.head.kind}",
        23: f"wetread {card.version}",
        24: str(settings.get("weights") or "embedded ImageNet weights") if settings else "",
        25: ", ".join(f"{key} {settings[key]}" for key in _TRAINING if key in settings),
        26: "best validation score; threshold, temperature and epoch chosen on validation" if settings else "",
        27: f"{card.networks} network(s), {card.views} view(s) averaged",
        28: ", ".join(dict.fromkeys(row.name for row in card.metrics)),
        32: _figures(card, "validation"),
        37: _figures(card, "test"),
        38: "; ".join(f"{p.name}: sensitivity and specificity with intervals" for p in card.operating_points[:3]),
        40: "; ".join(card.limits),
        41: card.intended_use,
        43: f"licence {card.licence}; weights sha256 {card.sha256[:12]}",
    }
    return {number: text for number, text in found.items() if text not in _UNKNOWN}


_TRAINING = ("mode", "epochs", "batch_size", "learning_rate", "augment", "loss", "guide", "seed")


def _figures(card: ReaderCard, split: str) -> str:
    rows = [row for row in card.metrics if row.split == split and row.estimate.value is not None]
    return "; ".join(f"{row.name} {row.estimate.value:.3f} (n {row.estimate.n})" for row in rows)


def _from_data(manifest: Manifest) -> dict[int, str]:
    table, meta = manifest.table, manifest.meta
    found = {10: f"{len(table)} images of {meta.name} as imported", 14: meta.label_policy}
    if meta.split is not None:
        found[19] = f"{meta.split.method}, seed {meta.split.seed}, sha256 {meta.split.sha256[:12]}"
    if table["split"].notna().any():
        found[35] = ", ".join(f"{name}: {n}" for name, n in table["split"].value_counts().items())
    for column in ("view", "body_part"):
        if table[column].notna().any():
            found[13] = ", ".join(f"{name}: {n}" for name, n in table[column].value_counts().head(4).items())
            break
    if table["sex"].notna().any() or table["age"].notna().any():
        parts = table.groupby("split", dropna=False)
        found[36] = "; ".join(
            f"{name}: {len(rows)} images, median age {rows['age'].median():g}, {int((rows['sex'] == 'F').sum())} female"
            for name, rows in parts
        )
    return found


def _from_audit(tested: Mapping[str, str]) -> dict[int, str]:
    """What the other lines of the same audit answer."""
    lines = {29: ("T10", "T11"), 30: ("T5", "T15"), 31: ("T7", "T8", "T9"), 33: ("T6",), 39: ("T13",)}
    return {
        number: "; ".join(f"{code}: {tested[code]}" for code in codes if code in tested)
        for number, codes in lines.items()
    }
