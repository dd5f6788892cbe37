"""All importers in the order in which they are tried, and the one function that runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wetread.datasets.columns import label_columns
from wetread.datasets.importers.base import Imported, Importer, ImportOptions
from wetread.datasets.importers.coco import CocoImporter
from wetread.datasets.importers.covid_cxr import CovidCxrImporter
from wetread.datasets.importers.dicom_tree import DicomTreeImporter
from wetread.datasets.importers.folder import FilesImporter, FolderImporter
from wetread.datasets.importers.kermany import KermanyImporter
from wetread.datasets.importers.mura import MuraImporter
from wetread.datasets.importers.table import TableImporter
from wetread.datasets.manifest import DatasetMeta, Manifest, SplitMeta, infer_classes, load_manifest
from wetread.datasets.mask_coco import CocoMasks, write_mask
from wetread.datasets.splits import assignment_sha256
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.provenance import atomic_folder
from wetread.runtime import in_order

__all__ = ["IMPORTERS", "ImportResult", "import_dataset", "recognise"]

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        MuraImporter(),
        CovidCxrImporter(),
        KermanyImporter(),
        CocoImporter(),
        DicomTreeImporter(),
        TableImporter(),
        FolderImporter(),
        FilesImporter(),
    )
}
"""By name; the particular layouts come before the general ones."""
MASK_FOLDER = "masks"
"""Where masks are written, beside the manifest."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportResult:
    """The manifest, the layout that was read and why, and what a person should know.

    ``masks`` maps a mask column to masks by path; the manifest has these columns once :meth:`save` has written them.
    """

    manifest: Manifest
    layout: str
    reason: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    masks: dict[str, CocoMasks] = field(default_factory=dict)

    def save(
        self, folder: Path, progress: Callable[[int, int], None] | None = None, *, replace: bool = False
    ) -> Manifest:
        """Write the manifest into ``folder`` and what masks there are below its ``masks``; return it as written.

        ``progress`` is called with (done, total) masks; ``replace`` puts new masks in place of imported ones.

        Raises:
            UsageError: ``folder`` has a ``masks`` that this import did not write.
            DatasetRefused: the disk is full, or the place may not be written.
        """
        if not self.masks:
            self.manifest.save(folder)
            return self.manifest
        home = folder / MASK_FOLDER
        done = self._with_mask_columns(home)
        with atomic_folder(home, replace=replace and _wrote_masks(folder), failure=DatasetRefused) as part:
            jobs = [(masks, path, column) for column, masks in self.masks.items() for path in masks]
            written = in_order(lambda job: write_mask(job[0][job[1]], part / _mask_name(job[2], job[1])), jobs)
            for number, _ in enumerate(written, 1):
                if progress:
                    progress(number, len(jobs))
            done.save(folder)
        return done

    def _with_mask_columns(self, home: Path) -> Manifest:
        table = self.manifest.table.copy()
        for column, masks in self.masks.items():
            table[column] = table["path"].map({path: _mask_name(column, path) for path in masks})
        return self.manifest.with_table(table, mask_root=str(home.resolve()))


def _mask_name(column: str, path: str) -> str:
    return f"{column.removeprefix('mask_')}/{path}.png"


def _wrote_masks(folder: Path) -> bool:
    """Whether the masks of a data set were written by an import, and are nobody's originals."""
    try:
        old = load_manifest(folder)
    except DatasetRefused:
        return False
    return old.meta.importer == CocoImporter.name and old.mask_path_of("") == (folder / MASK_FOLDER).resolve()


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
    :class:`DatasetRefused`, or :class:`UsageError` for a layout that does not exist or does not fit the options.
    """
    source = source.expanduser()
    if not source.exists():
        raise DatasetRefused(expected("a folder or table", f"nothing at {source}", "check the path"))
    asked = options or ImportOptions()
    importer, reason = _importer(source, CocoImporter.name if layout == "auto" and asked.coco else layout)
    if (asked.coco or asked.categories) and importer.name != CocoImporter.name:
        got = f"--coco or --category for the layout {importer.name}"
        raise UsageError(expected("COCO flags for the layout coco", got, "leave them out, or --layout coco"))
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
    return ImportResult(done, importer.name, reason, imported.notes, imported.warnings, imported.masks)


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
        fields.setdefault("label_policy", "1 present, 0 absent, null unknown; uncertain is null")
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
