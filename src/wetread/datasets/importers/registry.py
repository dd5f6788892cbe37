"""All importers in the order in which they are tried, and the one function that runs them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wetread.datasets.columns import label_columns
from wetread.datasets.importers.base import Imported, Importer, ImportOptions
from wetread.datasets.importers.covid_cxr import CovidCxrImporter
from wetread.datasets.importers.dicom_tree import DicomTreeImporter
from wetread.datasets.importers.folder import FilesImporter, FolderImporter
from wetread.datasets.importers.kermany import KermanyImporter
from wetread.datasets.importers.mura import MuraImporter
from wetread.datasets.importers.table import TableImporter
from wetread.datasets.manifest import DatasetMeta, Manifest, SplitMeta, infer_classes
from wetread.datasets.splits import assignment_sha256
from wetread.errors import DatasetRefused, UsageError, expected

__all__ = ["IMPORTERS", "ImportResult", "import_dataset", "recognise"]

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        MuraImporter(),
        CovidCxrImporter(),
        KermanyImporter(),
        DicomTreeImporter(),
        TableImporter(),
        FolderImporter(),
        FilesImporter(),
    )
}
"""By name; the particular layouts come before the general ones."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportResult:
    """The manifest, the layout that was read and why, and what a person should know."""

    manifest: Manifest
    layout: str
    reason: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def recognise(source: Path) -> tuple[Importer, str]:
    """The first importer that knows this layout, and why. Raises :class:`DatasetRefused`."""
    for importer in IMPORTERS.values():
        reason = importer.recognise(source)
        if reason:
            return importer, reason
    raise DatasetRefused(
        expected(
            f"one of the layouts {', '.join(IMPORTERS)}",
            f"none of them in {source}" if _any_file(source) else f"{source} without a file",
            "say which with --layout, or write a table of the images and import that",
        )
    )


def import_dataset(
    source: Path,
    *,
    layout: str = "auto",
    options: ImportOptions | None = None,
    name: str | None = None,
) -> ImportResult:
    """Read a source into a manifest that points at it; no image is copied or decoded.

    ``sha256`` of every file is filled in, so that splits keep identical files together. Raises
    :class:`DatasetRefused`, or :class:`UsageError` for a layout that does not exist.
    """
    source = source.expanduser()
    if not source.exists():
        raise DatasetRefused(expected("a folder or table", f"nothing at {source}", "check the path"))
    asked = options or ImportOptions()
    importer, reason = _importer(source, layout)
    imported = importer.read(source.resolve(), asked)
    meta = _meta(imported, importer.name, name or _default_name(source), asked)
    manifest = Manifest(imported.table, meta, Path.cwd())
    manifest.require_files()
    hashed = [_sha256(manifest.path_of(p)) for p in manifest.table["path"]]
    table = manifest.table.assign(sha256=hashed)
    split = None
    if table["split"].notna().any():
        given = tuple(sorted(str(v) for v in table["split"].dropna().unique()))
        split = SplitMeta(method="given with the data", sha256=assignment_sha256(table), given=given)
    done = manifest.with_table(table, split=split)
    return ImportResult(done, importer.name, reason, imported.notes, imported.warnings)


def _importer(source: Path, layout: str) -> tuple[Importer, str]:
    if layout == "auto":
        return recognise(source)
    if layout not in IMPORTERS:
        raise UsageError(expected(f"a layout among auto, {', '.join(IMPORTERS)}", f"'{layout}'", "choose one of them"))
    return IMPORTERS[layout], "as asked"


def _meta(imported: Imported, importer: str, name: str, options: ImportOptions) -> DatasetMeta:
    fields: dict[str, Any] = dict(imported.meta)
    if "classes" not in fields:
        task, classes = infer_classes(imported.table, options.negative)
        fields |= {"task": task, "classes": tuple(classes)}
    if label_columns(imported.table):
        fields["label_policy"] = "1 present, 0 absent, null unknown; uncertain is null"
    notes = imported.warnings
    return DatasetMeta(name=name, root=str(imported.root.resolve()), importer=importer, warnings=notes, **fields)


def _default_name(source: Path) -> str:
    resolved = source.resolve()
    return resolved.stem if resolved.is_file() else resolved.name


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _any_file(source: Path) -> bool:
    return source.is_file() or next((f for f in source.rglob("*") if f.is_file()), None) is not None
