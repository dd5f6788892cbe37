"""The covid-chestxray-dataset (Cohen et al., arXiv 2006.11988): ``metadata.csv`` and ``images/``.

Adult radiographs scraped from publications of many hospitals. Findings are grouped into three
classes; the finding as written stays in column ``finding``. ``todo``, ``Unknown`` and findings
that name no cause (ARDS alone) are null.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.columns import read_table
from wetread.datasets.importers.base import Imported, ImportOptions, age_years, sex_letter
from wetread.errors import DatasetRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CovidCxrImporter"]

CLASSES = ("No Finding", "COVID-19", "Other pneumonia")
_NEEDED = ("patientid", "offset", "finding", "view", "modality", "filename")
_OTHER_PNEUMONIA = frozenset(
    {
        "aspergillosis", "aspiration", "bacterial", "chlamydophila", "e.coli", "fungal", "h1n1",
        "herpes", "influenza", "klebsiella", "legionella", "lipoid", "mers-cov", "mrsa",
        "mycoplasma", "mycoplasma bacterial pneumonia", "nocardia", "pneumocystis", "pneumonia",
        "sars", "staphylococcus", "streptococcus", "varicella", "viral",
    }
)  # fmt: skip
"""Causes of pneumonia that the published tables name, in lower case."""


class CovidCxrImporter:
    """``metadata.csv`` with patientid, offset, finding and filename, images in ``images/``."""

    name = "covid-cxr"
    summary = "covid-chestxray-dataset, metadata.csv with images/"

    def recognise(self, source: Path) -> str | None:
        """The columns of its ``metadata.csv``."""
        file = _metadata(source)
        if not file.is_file():
            return None
        with file.open(newline="", encoding="utf-8", errors="replace") as handle:
            header = {c.strip().lower() for c in next(csv.reader(handle), [])}
        return "metadata.csv of covid-chestxray-dataset" if set(_NEEDED) <= header else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` where columns or all images are missing."""
        root = _metadata(source).parent
        raw = read_table(_metadata(source))
        missing = [c for c in _NEEDED if c not in raw.columns]
        if missing:
            raise DatasetRefused(
                expected(
                    f"the columns {', '.join(_NEEDED)} in metadata.csv",
                    f"no {', '.join(missing)}",
                    "import with --layout table and --map",
                )
            )
        radiographs = raw[raw["modality"].str.strip().str.lower() == "x-ray"]
        there = radiographs[[(root / "images" / f).is_file() for f in radiographs["filename"]]]
        if there.empty:
            raise DatasetRefused(
                expected(
                    f"images in {root / 'images'}",
                    f"none of the {len(radiographs)} radiographs that metadata.csv lists",
                    "put them there as published",
                )
            )
        table = _table(there, root)
        known = int(table["label"].notna().sum())
        notes = (
            f"{len(raw) - len(radiographs)} rows of another modality and "
            f"{len(radiographs) - len(there)} radiographs that are not on disk left out",
            f"label: {known} of {len(table)} findings known; the rest (todo, unknown, no cause) is null",
            "study: patient and day offset; source: location",
        )
        return Imported(table, root, notes, meta=_META)


_META = {
    "task": "multiclass",
    "classes": CLASSES,
    "licence": "per image, see column licence; research use",
    "organ": "lungs",
    "label_policy": "findings grouped into three classes, original in column finding; "
    "todo, Unknown and findings without a cause are null",
}


def _metadata(source: Path) -> Path:
    return source if source.name == "metadata.csv" else source / "metadata.csv"


def _table(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    import pandas as pd

    def optional(name: str) -> pd.Series:
        return rows[name] if name in rows.columns else pd.Series(None, index=rows.index, dtype="str")

    patient = rows["patientid"].str.strip()
    offset = rows["offset"].str.strip()
    study = (patient + "/day" + offset).where(offset.notna())
    masks = optional("lung_mask")
    view = rows["view"].str.strip()
    return pd.DataFrame(
        {
            "path": "images/" + rows["filename"],
            "patient": patient,
            "study": study,
            "label": [_class_of(f) for f in rows["finding"]],
            "source": optional("location"),
            "view": view.where(view != "?"),
            "body_part": "CHEST",
            "sex": [sex_letter(v) for v in optional("sex").where(optional("sex").notna(), None)],
            "age": [age_years(v) for v in optional("age")],
            "mask": [m if isinstance(m, str) and (root / m).is_file() else None for m in masks],
            "text": optional("clinical_notes"),
            "licence": optional("license").str.strip(),
            "offset_days": pd.to_numeric(offset, errors="coerce"),
            "finding": rows["finding"],
            "lung_boxes": [_boxes(v) for v in optional("lung_boxes_xywh_rel")],
        }
    )


def _class_of(finding: str) -> str | None:
    """Old tables write ``COVID-19, ARDS``, newer ones ``Pneumonia/Viral/COVID-19``."""
    parts = {p.strip().lower() for p in str(finding).replace("/", ",").split(",")}
    if "covid-19" in parts:
        return "COVID-19"
    if "no finding" in parts:
        return "No Finding"
    return "Other pneumonia" if parts & _OTHER_PNEUMONIA else None


def _boxes(cell: object) -> str | None:
    """JSON list of ``{label, x, y, width, height}``, as fractions (0-1) of the image."""
    if not isinstance(cell, str):
        return None
    try:
        boxes = [{"label": label, "x": x, "y": y, "width": w, "height": h} for label, x, y, w, h in json.loads(cell)]
    except (ValueError, TypeError):
        return None
    return json.dumps(boxes) if boxes else None
