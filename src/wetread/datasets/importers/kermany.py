"""The paediatric chest radiographs of Kermany et al. (Cell 2018; Mendeley Data rscbjbr9sj).

The names hold the patients. ``personN_bacteria_M`` and ``personN_virus_M``: N is the patient.
``IM-A-B`` and ``NORMAL2-IM-A-B``: A is the patient; the two are separate series of numbers (in
each of them the test part ends before the train part begins). Numbering may restart between
train and test, so that patient ids carry their split and shared numbers are counted and shown.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from wetread.datasets.importers.base import Imported, ImportOptions, files_below, posix, split_word
from wetread.errors import DatasetRefused, expected

__all__ = ["KermanyImporter"]

_NAME = re.compile(
    r"^(?P<patient>person\d+)_(?P<subtype>bacteria|virus)_\d+(?:_\d+)?$"
    r"|^(?P<normal>(?:NORMAL2-)?IM-\d+)-\d+(?:-\d+)?$"
)
_CLASSES = ("NORMAL", "PNEUMONIA")
_SHOWN = 3


class KermanyImporter:
    """``{train,val,test}/{NORMAL,PNEUMONIA}/personN_bacteria_M.jpeg`` and the like."""

    name = "kermany"
    summary = "Kermany paediatric chest radiographs, patients from the file names"

    def recognise(self, source: Path) -> str | None:
        """Folders NORMAL and PNEUMONIA below train or test, with names of that set."""
        for split in ("train", "test"):
            folder = source / split / "PNEUMONIA"
            if folder.is_dir() and (source / split / "NORMAL").is_dir():
                first = next((f for f in folder.iterdir() if not f.name.startswith(".")), None)
                if first is not None and _NAME.match(first.stem):
                    return f"{split}/PNEUMONIA with names like {first.name}"
        return None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for names or folders that are not of this set."""
        import pandas as pd

        files = files_below(source)
        rows = [self._row(posix(f, source)) for f in files]
        odd = [posix(f, source) for f, r in zip(files, rows, strict=True) if r is None]
        if odd or not rows:
            raise DatasetRefused(
                expected(
                    "split/NORMAL|PNEUMONIA/ with names like personN_virus_M or IM-A-B",
                    f"{len(odd)} other files, e.g. {odd[:_SHOWN]}" if odd else "no images",
                    "take them away, or import with --layout folder",
                )
            )
        table = pd.DataFrame(rows)
        known = {
            "view": "AP",
            "body_part": "CHEST",
            "source": "Guangzhou Women and Children's Medical Center",
            "licence": "CC BY 4.0",
        }
        return Imported(
            table.assign(**known),
            source,
            notes=("patient: N of personN, A of IM-A-B and NORMAL2-IM-A-B, within each split",),
            warnings=_shared_numbers(table["patient"]),
            meta={
                "task": "binary",
                "classes": _CLASSES,
                "licence": "CC BY 4.0",
                "organ": "lungs",
                "label_policy": "folder name; bacteria or virus kept in column subtype",
            },
        )

    @staticmethod
    def _row(path: str) -> dict[str, str | None] | None:
        parts = path.split("/")
        match = _NAME.match(Path(parts[-1]).stem)
        split = split_word(parts[0])
        if match is None or split is None or len(parts) != 3 or parts[1] not in _CLASSES:
            return None
        return {
            "path": path,
            "patient": f"{split}/{match['patient'] or match['normal']}",
            "label": parts[1],
            "split": split,
            "subtype": match["subtype"],
        }


def _shared_numbers(patients: object) -> tuple[str, ...]:
    """A warning for patient numbers that occur in more than one split."""
    splits: dict[str, set[str]] = defaultdict(set)
    for patient in patients:  # type: ignore[attr-defined]
        split, number = patient.split("/")
        splits[number].add(split)
    shared = sorted(n for n, where in splits.items() if len(where) > 1)
    if not shared:
        return ()
    return (
        f"{len(shared)} patient numbers occur in more than one split, e.g. "
        f"{', '.join(shared[:_SHOWN])}; numbering may restart per split, so they are kept apart: "
        "a sharing of patients between train and test can be neither shown nor ruled out",
    )
