"""Labels that contradict each other, and classes too small to learn or to judge from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wetread.datasets.check_result import Example, Finding
from wetread.datasets.columns import LABEL_PREFIX, label_columns
from wetread.datasets.duplicates import Copies
from wetread.datasets.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FEW_PATIENTS", "label_findings"]

FEW_PATIENTS = 10
"""Patients of a class below which an interval on its sensitivity spans most of the range (a Wilson
interval of 9 of 10 is .60 to .98)."""
_SHOWN = 5


def label_findings(manifest: Manifest, copies: Copies) -> list[Finding]:
    """Conflicts between copies and within studies, unlabelled images, absent and small classes."""
    labels = _label_of_each(manifest)
    found = [
        _copies_disagree(manifest, labels, copies),
        _studies_disagree(manifest, labels),
        _unlabelled(manifest, labels),
        *_classes(manifest),
    ]
    return [f for f in found if f is not None]


def _label_of_each(manifest: Manifest) -> list[str | None]:
    """One word per image: the class, or the 0/1/? pattern of a multi-label image; None if unknown."""
    table = manifest.table
    columns = label_columns(table)
    if not columns:
        return [v if isinstance(v, str) else None for v in table["label"]]
    patterns = zip(*(table[c] for c in columns), strict=True)
    words = ["".join("?" if v != v else str(int(v)) for v in pattern) for pattern in patterns]
    return [None if set(w) == {"?"} else w for w in words]


def _disagree(a: str | None, b: str | None, *, several: bool) -> bool:
    if a is None or b is None:
        return False
    if not several:
        return a != b
    return any({x, y} == {"0", "1"} for x, y in zip(a, b, strict=True))


def _copies_disagree(manifest: Manifest, labels: list[str | None], copies: Copies) -> Finding | None:
    several = bool(label_columns(manifest.table))
    pairs = [(g[0], other) for g in copies.exact for other in g[1:]]
    pairs += [(p.first, p.second) for p in copies.near]
    wrong = [(a, b) for a, b in pairs if _disagree(labels[a], labels[b], several=several)]
    if not wrong:
        return None
    paths = manifest.table["path"]
    return Finding(
        code="copies-with-different-labels",
        severity="warn",
        title="The same image has different labels",
        count=len(wrong),
        unit="pairs",
        cure="find out which label is right; leave both empty where nobody knows",
        examples=tuple(
            Example(paths=(paths[a], paths[b]), detail=f"{labels[a]} / {labels[b]}") for a, b in wrong[:_SHOWN]
        ),
    )


def _studies_disagree(manifest: Manifest, labels: list[str | None]) -> Finding | None:
    """Within one study of a single-label set. Several labels may be right, so this only warns."""
    import pandas as pd

    table = manifest.table
    if label_columns(table) or table["study"].isna().all():
        return None
    known = pd.DataFrame({"study": table["study"], "label": labels, "path": table["path"]}).dropna()
    per_study = known.groupby("study")["label"].nunique()
    wrong = known[known["study"].isin(per_study.index[per_study > 1])]
    if wrong.empty:
        return None
    return Finding(
        code="studies-with-different-labels",
        severity="warn",
        title="Images of one study have different labels",
        count=int(wrong["study"].nunique()),
        unit="studies",
        cure="check whether labels are meant per image or per study",
        examples=tuple(
            Example(paths=tuple(group["path"][:_SHOWN]), detail=" / ".join(group["label"][:_SHOWN]))
            for _, group in list(wrong.groupby("study"))[:_SHOWN]
        ),
    )


def _unlabelled(manifest: Manifest, labels: list[str | None]) -> Finding | None:
    rows = [i for i, label in enumerate(labels) if label is None]
    if not rows:
        return None
    return Finding(
        code="unlabelled",
        severity="info",
        title="Images without a label",
        count=len(rows),
        unit="images",
        cure="nothing: they are left out of training and figures, and never count as negative",
        examples=tuple(Example(paths=(manifest.table["path"][i],)) for i in rows[:_SHOWN]),
    )


def _classes(manifest: Manifest) -> list[Finding]:
    """Absent classes block a split that needs them; few patients only warn."""
    table, meta = manifest.table, manifest.meta
    if not meta.labelled:
        return []
    member = {c: _is_class(table, c) for c in meta.classes}
    present = [c for c in meta.classes if member[c].any()]
    if meta.task != "multilabel" and len(present) < 2:
        return [_class_finding("single-class", "block", "Only one class has images", present,
                               "add images of another class")]  # fmt: skip
    found = []
    where = table["patient"].fillna(table["path"])
    few = [c for c in meta.classes if where[member[c]].nunique() < FEW_PATIENTS]
    if few:
        title = f"Classes with fewer than {FEW_PATIENTS} patients"
        cure = "merge them, leave them unlabelled, or read their figures as anecdotes"
        found.append(_class_finding("few-patients", "warn", title, few, cure))
    for split in table["split"].dropna().unique():
        absent = [c for c in meta.classes if not (member[c] & (table["split"] == split)).any()]
        if absent:
            title = f"Classes without an image in {split}"
            cure = "divide anew: wetread dataset split DATASET --reset"
            found.append(_class_finding(f"class-absent-in-{split}", "warn", title, absent, cure))
    return found


def _is_class(table: pd.DataFrame, name: str) -> pd.Series:
    column = LABEL_PREFIX + name
    return table[column] == 1 if column in table.columns else table["label"] == name


def _class_finding(code: str, severity: str, title: str, classes: list[str], cure: str) -> Finding:
    return Finding.model_validate(
        {
            "code": code,
            "severity": severity,
            "title": f"{title}: {', '.join(classes) or 'none at all'}",
            "count": len(classes),
            "unit": "classes",
            "cure": cure,
        }
    )
