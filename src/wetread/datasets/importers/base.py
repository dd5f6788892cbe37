"""What an importer takes and gives, and the words that all importers read in the same way."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.mask_coco import CocoMasks

__all__ = [
    "IMAGE_SUFFIXES",
    "ImportOptions",
    "Imported",
    "Importer",
    "age_years",
    "files_below",
    "patients_by_pattern",
    "posix",
    "sex_letter",
    "split_word",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".bmp", ".svs"})
"""Files of class-folder trees; DICOM trees are recognised by content instead."""

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_AGE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([DWMY]?)\s*$", re.IGNORECASE)
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}


@dataclass(frozen=True)
class ImportOptions:
    """What the user said about the source; every field may stay empty.

    ``columns`` maps our column names to theirs. ``labels`` is a table beside a tree that has no
    labels of its own. ``label_columns`` (one per class) or ``label_separator`` (several classes
    in one cell) make the task multi-label. ``patient_pattern`` is a regular expression whose
    first group, found in the path, is the patient. ``images`` is the folder of a table's images.
    ``coco`` is a COCO file, ``categories`` maps our names to those of its categories; empty takes all.
    """

    columns: dict[str, str] = field(default_factory=dict)
    labels: Path | None = None
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    negative: str | None = None
    patient_pattern: str | None = None
    images: Path | None = None
    coco: Path | None = None
    categories: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A table of images below ``root`` and what was decided on the way.

    ``notes`` say what was guessed or left out, ``warnings`` what may be wrong; both are shown.
    ``meta`` holds fields of :class:`DatasetMeta` that the layout fixes, such as its licence.
    ``masks`` maps a mask column to masks by path that are to be written beside the manifest.
    """

    table: pd.DataFrame
    root: Path
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, CocoMasks] = field(default_factory=dict)


class Importer(Protocol):
    """One layout of files on disk."""

    name: str
    summary: str

    def recognise(self, source: Path) -> str | None:
        """Why ``source`` has this layout, or None where it has not; cheap, opens few files."""

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """The table. Raises :class:`DatasetRefused` where the layout is broken."""


def files_below(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Every file with such a suffix, sorted; hidden files and ``__MACOSX`` are left out."""
    found: list[Path] = []
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        found += [Path(where, n) for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in suffixes]
    return sorted(found)


def posix(file: Path, root: Path) -> str:
    """The path as the manifest holds it: relative to ``root``, with forward slashes."""
    return file.relative_to(root).as_posix()


def split_word(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for the usual spellings, else None."""
    lowered = word.strip().lower()
    return next((name for name, words in _SPLIT_WORDS.items() if lowered in words), None)


def sex_letter(text: object) -> str | None:
    """``M``, ``F`` or ``O`` (Patient's Sex (0010,0040)), else None for unknown."""
    letter = str(text).strip()[:1].upper() if text is not None else ""
    return letter if letter in {"M", "F", "O"} else None


def age_years(text: object) -> float | None:
    """Years from a number or a DICOM Age String (PS3.5 6.2: ``072Y``, ``018M``), else None."""
    match = _AGE.match(str(text)) if text is not None else None
    return float(match[1]) / _PER_YEAR[match[2].upper()] if match else None


def patients_by_pattern(table: pd.DataFrame, pattern: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Fill ``patient`` from the paths; give the table and notes on what the pattern found.

    Raises :class:`UsageError` for a pattern that is no regular expression with one group, and
    :class:`DatasetRefused` where it matches no path.
    """
    import pandas as pd

    if pattern is None:
        return table, []
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(expected("a regular expression in --patient-pattern", str(error), "mend it")) from error
    if compiled.groups != 1:
        raise UsageError(
            expected(
                "one group (...) in --patient-pattern",
                f"{compiled.groups}",
                "put brackets around the part of the path that names the patient",
            )
        )
    found = [compiled.search(p) for p in table["path"]]
    named = [m[1] if m else None for m in found]
    n = sum(v is not None for v in named)
    if n == 0:
        raise DatasetRefused(
            expected(
                f"--patient-pattern {pattern!r} to match paths",
                f"no match among {len(table)}, e.g. '{table['path'].iloc[0]}'",
                "adapt the pattern",
            )
        )
    note = f"patient: {len(set(named) - {None})} from the paths of {n} of {len(table)} images"
    return table.assign(patient=pd.Series(named, index=table.index, dtype="str")), [note]
