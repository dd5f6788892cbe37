"""Class-folder trees: ``[split/]class/…/image``. The folder is the label; patients are unknown."""

from __future__ import annotations

from pathlib import Path

from wetread.datasets.importers.base import (
    IMAGE_SUFFIXES,
    Imported,
    ImportOptions,
    files_below,
    patients_by_pattern,
    posix,
    split_word,
)
from wetread.errors import DatasetRefused, expected

__all__ = ["NO_PATIENTS", "FilesImporter", "FolderImporter"]

NO_PATIENTS = (
    "no patient is known: images of one patient may land in two splits; "
    "say how the paths name patients with --patient-pattern"
)


class FolderImporter:
    """One folder per class, with or without ``train``/``val``/``test`` folders above them."""

    name = "folder"
    summary = "class folders, [split/]class/…/image"

    def recognise(self, source: Path) -> str | None:
        """Two or more folders with images, or split folders with such folders inside."""
        if not source.is_dir():
            return None
        folders = [f for f in sorted(source.iterdir()) if f.is_dir() and not f.name.startswith(".")]
        inner = [g for f in folders if split_word(f.name) for g in f.iterdir() if g.is_dir()] or folders
        names = sorted({f.name for f in inner if _has_image(f)})
        return f"class folders {', '.join(names)}" if len(names) > 1 else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for fewer than two classes or images outside of one."""
        import pandas as pd

        rows = [self._row(posix(f, source)) for f in files_below(source)]
        classes = sorted({str(r["label"]) for r in rows if r["label"]})
        if len(classes) < 2:
            raise DatasetRefused(
                expected(
                    "at least two class folders with images",
                    f"{len(classes)} ({', '.join(classes) or 'none'}) below {source}",
                    "give the folder above the classes, or use --layout files for images without labels",
                )
            )
        loose = [r["path"] for r in rows if r["label"] is None]
        if loose:
            raise DatasetRefused(
                expected(
                    "every image inside a class folder",
                    f"{len(loose)} outside, e.g. '{loose[0]}'",
                    "move them into a class folder or away",
                )
            )
        table, notes = patients_by_pattern(pd.DataFrame(rows), options.patient_pattern)
        warnings = () if options.patient_pattern else (NO_PATIENTS,)
        return Imported(table, source, tuple(notes), warnings)

    @staticmethod
    def _row(path: str) -> dict[str, str | None]:
        folders = path.split("/")[:-1]
        split = split_word(folders[0]) if folders else None
        if split:
            folders = folders[1:]
        return {"path": path, "label": folders[0] if folders else None, "split": split}


class FilesImporter:
    """Any images below a folder, without labels: for search indexes, reading, de-identification."""

    name = "files"
    summary = "images without labels, in any folders"

    def recognise(self, source: Path) -> str | None:
        """Never by itself: leaving labels out is for the user to say."""
        return None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for a folder without images."""
        import pandas as pd

        paths = [posix(f, source) for f in files_below(source)]
        if not paths:
            raise DatasetRefused(expected("images", f"none below {source}", "give a folder that holds images"))
        table, notes = patients_by_pattern(pd.DataFrame({"path": paths}), options.patient_pattern)
        warnings = () if options.patient_pattern else (NO_PATIENTS,)
        return Imported(table, source, tuple(notes), warnings)


def _has_image(folder: Path) -> bool:
    """Looks no further than a class folder's own files and one level below."""
    direct = any(f.suffix.lower() in IMAGE_SUFFIXES for f in folder.iterdir())
    return direct or any(files_below(f) for f in folder.iterdir() if f.is_dir())
