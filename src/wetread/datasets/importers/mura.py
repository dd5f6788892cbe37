"""MURA bone radiographs as published (Rajpurkar et al., arXiv 1712.06957).

``MURA-v1.1/{train,valid}/XR_ELBOW/patient00011/study1_negative/image1.png``, with
``{train,valid}_labeled_studies.csv`` and ``…_image_paths.csv`` beside them. The published test
set was never released: its validation set is what articles report on, so it becomes ``test``,
and a validation split is cut from train by ``wetread dataset split``.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.importers.base import Imported, ImportOptions, files_below, posix
from wetread.errors import DatasetRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MuraImporter"]

_PATH = re.compile(
    r"^(?P<release>[^/]+)/(?P<split>train|valid)/XR_(?P<part>[A-Z]+)/(?P<patient>patient\d+)/"
    r"(?P<study>study\d+)_(?P<label>positive|negative)/image\d+\.png$"
)
_SPLITS = {"train": "train", "valid": "test"}
_LABELS = {"0": "negative", "1": "positive"}


class MuraImporter:
    """The MURA-v1.1 folder, or the folder that holds it."""

    name = "mura"
    summary = "MURA bone radiographs, {train,valid}/XR_*/patientN/studyM_{positive,negative}"

    def recognise(self, source: Path) -> str | None:
        """A train or valid folder with ``XR_`` folders of patients inside."""
        release = _release(source)
        return f"{release.name} with XR_ folders" if release else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for stray images and for labels that contradict the csv."""
        import pandas as pd

        release = _release(source)
        if release is None:
            raise DatasetRefused(
                expected(
                    "MURA's folders train and valid with XR_*/patient*/study*",
                    f"none below {source}",
                    "give the folder MURA-v1.1",
                )
            )
        root = release.parent
        paths = [posix(f, root) for f in files_below(release, frozenset({".png"}))]
        matches = [_PATH.match(p) for p in paths]
        stray = [p for p, m in zip(paths, matches, strict=True) if m is None]
        if stray or not paths:
            raise DatasetRefused(
                expected(
                    "images named …/patientN/studyM_positive|negative/imageK.png",
                    f"{len(stray)} others, e.g. '{stray[0]}'" if stray else "no image",
                    "take them away",
                )
            )
        table = pd.DataFrame([_row(m) for m in matches if m])
        notes = ["split: the published 'valid' set is used as test"] if "test" in set(table["split"]) else []
        notes += _compare_with_csv(release, table)
        return Imported(
            table,
            root,
            tuple(notes),
            meta={
                "task": "binary",
                "classes": ("negative", "positive"),
                "licence": "Stanford University research use agreement",
                "organ": "bone",
                "label_policy": "label of the study, given to each of its images",
            },
        )


def _release(source: Path) -> Path | None:
    """The folder that holds train and valid: ``source`` itself or its one child that does."""
    inside = [f for f in sorted(source.iterdir()) if f.is_dir()] if source.is_dir() else []
    for folder in (source, *inside):
        if any(p.is_dir() for s in _SPLITS for p in folder.glob(f"{s}/XR_*")):
            return folder.resolve()
    return None


def _row(match: re.Match[str]) -> dict[str, str]:
    part, patient = match["part"], match["patient"]
    return {
        "path": match[0],
        "patient": patient,
        "study": f"{patient}/XR_{part}/{match['study']}",
        "label": match["label"],
        "split": _SPLITS[match["split"]],
        "body_part": part,
    }


def _compare_with_csv(release: Path, table: pd.DataFrame) -> list[str]:
    notes = []
    for split, ours in _SPLITS.items():
        rows = table[table["split"] == ours]
        labels = _read_pairs(release / f"{split}_labeled_studies.csv")
        if labels is not None:
            _refuse_contradictions(labels, rows)
        listed = _read_pairs(release / f"{split}_image_paths.csv")
        if listed is not None:
            absent = len(set(listed) - set(rows["path"]))
            extra = len(set(rows["path"]) - set(listed))
            if absent or extra:
                notes.append(
                    f"{split}_image_paths.csv lists {len(listed)} images: {absent} of them are "
                    f"not on disk, {extra} on disk are not listed"
                )
    return notes


def _read_pairs(file: Path) -> dict[str, str] | None:
    """First column -> last column of a csv without a header, or None where there is no file."""
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as handle:
        return {row[0].strip(): row[-1].strip() for row in csv.reader(handle) if row}


def _refuse_contradictions(labels: dict[str, str], rows: pd.DataFrame) -> None:
    wrong = [
        folder
        for folder, label in zip(rows["path"].str.rsplit("/", n=1).str[0], rows["label"], strict=True)
        if _LABELS.get(labels.get(f"{folder}/", ""), label) != label
    ]
    if wrong:
        raise DatasetRefused(
            expected(
                "the csv and the folder names to agree on the label",
                f"{len(set(wrong))} studies that differ, e.g. '{wrong[0]}'",
                "download the set again",
            )
        )
