"""DICOM trees: patients, studies and series from the headers, labels from a table beside them.

Files are recognised by content, whatever their names; pixels are not read here. The table of
labels may be keyed by path, SOP instance, series, study or patient: the key whose values fit most
files is used, and shown.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.datasets.columns import LABEL_PREFIX, read_table
from wetread.datasets.importers.base import Imported, ImportOptions, age_years, posix, sex_letter
from wetread.datasets.importers.table import choose_columns, labels_of
from wetread.errors import DatasetRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DicomTreeImporter", "header_row", "is_dicom"]

_KEYS = ("path", "instance", "series", "study", "patient")
"""Columns that a table of labels can be keyed by, the finest first."""
_TAGS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "instance": "SOPInstanceUID",
    "view": "ViewPosition",
    "body_part": "BodyPartExamined",
    "laterality": "ImageLaterality",
    "sex": "PatientSex",
    "age": "PatientAge",
    "modality": "Modality",
    "source": "Manufacturer",
}
_PREAMBLE_BYTES = 132
_MAX_LOOKED_AT = 20
"""Files opened to recognise a tree."""


class DicomTreeImporter:
    """Any folder of DICOM files; ``--labels TABLE`` says what they show."""

    name = "dicom"
    summary = "DICOM files in any folders, patients and studies from the headers"

    def recognise(self, source: Path) -> str | None:
        """Most of the first files are DICOM by content (PS3.10 7.1: ``DICM`` after 128 bytes)."""
        if not source.is_dir():
            return None
        first = _files(source, _MAX_LOOKED_AT)
        n = sum(is_dicom(f) for f in first)
        return f"{n} of the first {len(first)} files are DICOM" if n * 2 > len(first) else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for a folder without DICOM or labels that fit no file."""
        import pandas as pd

        files = _files(source)
        dicoms = [f for f in files if is_dicom(f)]
        rows = [header_row(f, source) for f in dicoms]
        images = [r for r in rows if r is not None]
        if not images:
            raise DatasetRefused(
                expected("DICOM images", f"none in {len(files)} files below {source}", "check the folder")
            )
        table = pd.DataFrame(images)
        notes = [f"{len(files) - len(dicoms)} files that are not DICOM left out"]
        warnings = _warnings(table, [posix(f, source) for f, r in zip(dicoms, rows, strict=True) if r is None])
        if options.labels is None:
            notes.append("labels: none; give a table keyed by path, SOP instance, study or patient with --labels")
            return Imported(table, source, tuple(notes), warnings)
        table, more = _with_labels(table, options)
        return Imported(table, source, (*notes, *more), warnings)


def _warnings(table: pd.DataFrame, imageless: list[str]) -> tuple[str, ...]:
    found = []
    if imageless:
        found.append(
            f"{len(imageless)} DICOM files without rows and columns left out, e.g. {imageless[0]}: "
            "reports and the like, or damaged"
        )
    n = int(table["patient"].isna().sum())
    if n:
        found.append(f"{n} images name no patient: only their study keeps them together")
    return tuple(found)


def _files(folder: Path, most: int | None = None) -> list[Path]:
    found: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [Path(where, n) for n in sorted(names) if not n.startswith(".") and n != "DICOMDIR"]
        if most is not None and len(found) >= most:
            return found[:most]
    return sorted(found)


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by content (PS3.10 7.1); False where it cannot be opened."""
    try:
        with file.open("rb") as handle:
            return handle.read(_PREAMBLE_BYTES)[-4:] == b"DICM"
    except OSError:
        return False


def header_row(file: Path, root: Path) -> dict[str, Any] | None:
    """One row from the header, or None for an object without rows and columns (a report, an index)."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    from wetread.imaging.header import quiet

    wanted = [*_TAGS.values(), "Rows", "Columns", "Laterality"]
    try:
        with quiet():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(wanted))
            if header.get("Rows") is None or header.get("Columns") is None:
                return None
            row = {ours: _text(header.get(tag)) for ours, tag in _TAGS.items()}
            row["laterality"] = row["laterality"] or _text(header.get("Laterality"))
    except (InvalidDicomError, OSError, ValueError, KeyError, AttributeError) as error:
        raise DatasetRefused(
            expected(
                f"a readable DICOM header in {posix(file, root)}",
                type(error).__name__,
                "take the file away or repair it",
            )
        ) from error
    years = age_years(row["age"])
    return {"path": posix(file, root), **row, "sex": sex_letter(row["sex"]), "age": years}


def _text(value: object) -> str | None:
    text = str(value).strip() if value is not None else ""
    return text or None


def _with_labels(table: pd.DataFrame, options: ImportOptions) -> tuple[pd.DataFrame, list[str]]:
    if options.labels is None:  # the caller has looked
        return table, []
    raw = read_table(options.labels)
    wanted = ("path", "series", "study", "patient", "label")
    asked = {k: v for k, v in options.columns.items() if k in wanted}
    chosen, notes = choose_columns(list(raw.columns), asked, wanted)
    labels, more = labels_of(raw, chosen, options)
    key, column, hits = _best_key(table, raw, {c for c in raw.columns if c != chosen.get("label")})
    if hits == 0:
        raise DatasetRefused(
            expected(
                f"a column of {options.labels.name} with paths, SOP instances, studies or patients",
                f"the columns {', '.join(repr(c) for c in raw.columns)}, of which none fits a file",
                "check that the table belongs to these files",
            )
        )
    by_key = raw.assign(**labels)[[column, *labels]].dropna(subset=[column])
    by_key = by_key[~by_key[column].duplicated()]
    _refuse_contradictions(raw.assign(**labels), column, list(labels))
    joined = table.merge(by_key.rename(columns={column: "__key"}), how="left", left_on=key, right_on="__key")
    notes = [n for n in notes if n.startswith("label")] + more
    notes.append(f"labels: by {key} from column '{column}', {hits} of {len(table)} images found")
    return joined.drop(columns="__key"), notes


def _best_key(table: pd.DataFrame, raw: pd.DataFrame, columns: set[str]) -> tuple[str, str, int]:
    """Our key, their column, and how many images they fit; finer keys win ties."""
    usable = [c for c in raw.columns if c in columns and not c.startswith(LABEL_PREFIX)]
    fits = [
        (int(table[key].isin(set(raw[c].dropna().astype(str))).sum()), -i, key, c)
        for i, key in enumerate(_KEYS)
        for c in usable
    ]
    hits, _, key, column = max(fits, default=(0, 0, "path", ""))
    return key, column, hits


def _refuse_contradictions(raw: pd.DataFrame, column: str, labels: list[str]) -> None:
    per_key = raw.groupby(column)[labels].nunique()
    n = int((per_key > 1).any(axis=1).sum())
    if n:
        raise DatasetRefused(
            expected(
                f"one label for each value of '{column}'",
                f"{n} values with different labels",
                "decide which is right, or use one label_<class> column per class",
            )
        )
