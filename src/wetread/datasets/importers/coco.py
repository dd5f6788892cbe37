"""Images with a COCO instances file: outlines become masks, boxes are kept, categories may become labels.

Decided here: an image without an annotation of a category is *unknown*, since a file does not say whether anyone
looked; only a category that the user names as a label is absent where a listed image has none of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.coco import Coco, boxes_of, read_coco
from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.importers.base import IMAGE_SUFFIXES, Imported, ImportOptions, patients_by_pattern
from wetread.datasets.importers.dicom_tree import header_row, is_dicom
from wetread.datasets.importers.folder import NO_PATIENTS
from wetread.datasets.importers.table import choose_columns, take_columns
from wetread.datasets.mask_coco import CocoMasks, masks_of
from wetread.datasets.mask_raster import require_mask_size
from wetread.datasets.mask_seg import label_words
from wetread.datasets.masks import own_mask_column
from wetread.errors import DatasetRefused, ImageRefused, UsageError, expected
from wetread.imaging.load import image_shape
from wetread.runtime import in_order

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.coco import ListedImage

__all__ = ["CocoImporter"]

_FROM_ENTRIES = (
    *("patient", "study", "series", "split", "source", "view", "body_part", "laterality", "sex", "age", "text"),
    "licence",
)
"""Columns that an entry of ``images`` may fill with a key of its own."""
_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_PEEK_BYTES = 1 << 16
_MAX_LOOKED_AT = 20
"""JSON files opened to recognise the layout: one for each image is another one."""
_SIDES = ("left", "right")
_LABEL_POLICY = "a category: 1 annotated, 0 listed without it, null not listed"


@dataclass(frozen=True)
class _Source:
    """The file, what is in it, the folder that its image names start from, and ours -> their category."""

    file: Path
    coco: Coco
    root: Path
    categories: dict[str, str]

    def ids(self, category: str) -> set[int]:
        return self.coco.category_ids(category, self.file.name)


class CocoImporter:
    """A COCO file in the folder, in its ``annotations``, or named with ``--coco``."""

    name = "coco"
    summary = "COCO instances: masks from outlines, boxes, labels from categories"

    def recognise(self, source: Path) -> str | None:
        """A JSON file with the keys of COCO near its begin or end."""
        names = ", ".join(file.name for file in _coco_files(source))
        return f"COCO {names}" if names else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """The listed images, those beside them that are not listed, and masks that are not drawn yet.

        Raises:
            DatasetRefused: no such file or category, a listed image that is missing or of another size, a name
                that leads out of the folder, or an annotation that does not fit its image.
            UsageError: ``--map`` with a column that entries cannot fill.
        """
        found = _read(source, options)
        listed = [image.file_name for image in found.coco.images]
        loose = _unlisted(found.root, listed)
        table, notes = _entries(found, options, [*listed, *loose])
        notes.insert(0, f"images: below {found.root}, as written in {found.file.name}")
        if loose:
            notes.append(f"{len(loose)} images beside them are not listed: kept, with nothing known about them")
        masks, warnings = _masks(found)
        notes += [f"{column}: masks of {len(one)} of {len(table)} images" for column, one in masks.items()]
        boxes = boxes_of(found.coco, _box_labels(found), found.file.name)
        if boxes:
            notes.append(f"boxes: {sum(map(len, boxes.values()))} in {len(boxes)} images")
        labels, meta, note = _labels(found, options)
        texts = {path: json.dumps(some) for path, some in boxes.items()}
        table = table.assign(boxes=table["path"].map(texts))
        table = table.assign(**{name: table["path"].map(values) for name, values in labels.items()})
        table, more = patients_by_pattern(table, options.patient_pattern)
        warnings += _patient_warnings(table)
        table = table.sort_values("path", ignore_index=True)
        return Imported(table, found.root, (*notes, note, *more), tuple(warnings), meta, masks)


def _coco_files(source: Path) -> list[Path]:
    """What looks like COCO: the file itself, or files in the folder and in its ``annotations``."""
    if source.is_file():
        files = [source] if source.suffix.lower() == ".json" else []
    else:
        folders = [folder for folder in (source, source / "annotations") if folder.is_dir()]
        files = sorted(f for folder in folders for f in folder.iterdir() if f.suffix.lower() == ".json")
    return [f for f in files[:_MAX_LOOKED_AT] if not f.name.startswith(".") and _looks_like_coco(f)]


def _looks_like_coco(file: Path) -> bool:
    """Two of the three keys stand near begin or end, whatever their order; the whole may be hundreds of megabytes."""
    try:
        with file.open("rb") as handle:
            head = handle.read(_PEEK_BYTES)
            handle.seek(max(0, file.stat().st_size - _PEEK_BYTES))
            tail = handle.read(_PEEK_BYTES)
    except OSError:
        return False
    return sum(key in head or key in tail for key in _KEYS) >= 2


def _read(source: Path, options: ImportOptions) -> _Source:
    file = _annotation_file(source, options.coco)
    coco = read_coco(file).with_paths(file.name)
    if not coco.images or not coco.annotations:
        cure = "export it with annotations, or import the images alone with --layout files"
        got = f"{len(coco.images)} images and {len(coco.annotations)} annotations in {file.name}"
        raise DatasetRefused(expected("annotated images", got, cure))
    root = _root(coco.images, source, file, options.images)
    _require_sizes(coco.images, root, file.name)
    return _Source(file, coco, root, _chosen(coco, options.categories, file.name))


def _annotation_file(source: Path, asked: Path | None) -> Path:
    if asked is not None:
        return asked if asked.exists() or not (source / asked).is_file() else source / asked
    files = _coco_files(source)
    if len(files) == 1:
        return files[0]
    got = f"{len(files)}" + (f": {', '.join(file.name for file in files)}" if files else f" in {source}")
    raise DatasetRefused(expected("one COCO file", got, "name it with --coco FILE"))


def _root(images: list[ListedImage], source: Path, file: Path, asked: Path | None) -> Path:
    """The folder below which most listed images are.

    Raises:
        DatasetRefused: some are not there.
    """
    folders = (source, file.parent) if source.is_dir() else (file.parent, file.parent.parent)
    beside = [place for folder in folders for place in (folder, folder / "images")]
    places = [asked] if asked is not None else beside
    # A name may be of any length: isfile says no where Path.is_file raises.
    missing = {p: [i.file_name for i in images if not os.path.isfile(p / i.file_name)] for p in places}
    root = min(places, key=lambda place: len(missing[place]))
    if missing[root]:
        got = f"{len(missing[root])} that are not there, e.g. '{missing[root][0]}'"
        cure = f"name their folder with --images FOLDER, or take them out of {file.name}"
        raise DatasetRefused(expected(f"{len(images)} image files below {root}", got, cure))
    return root.resolve()


def _require_sizes(images: list[ListedImage], root: Path, name: str) -> None:
    """Every listed image has the size that its annotations were drawn on; told from headers, nothing is decoded."""
    for image, shape in zip(images, in_order(lambda one: _shape(root, one.file_name), images), strict=True):
        require_mask_size(f"{name} for {image.file_name}", (image.height, image.width), shape)


def _shape(root: Path, path: str) -> tuple[int, int]:
    try:
        return image_shape(root / path)
    except ImageRefused as error:
        raise DatasetRefused(expected("readable images", f"{path} ({error})", "mend it, or take it out")) from error


def _chosen(coco: Coco, asked: Mapping[str, str], name: str) -> dict[str, str]:
    """Ours -> their category: what was asked for, else all that are annotated."""
    used = {one.category_id for one in coco.annotations}
    if not asked:
        first = {one.name.casefold(): one.name for one in reversed(coco.categories) if one.id in used}
        return {category: category for category in reversed(first.values())}
    for category in asked.values():
        if not coco.category_ids(category, name) & used:
            raise DatasetRefused(expected(f"annotations of '{category}'", f"none in {name}", "leave it out"))
    return dict(asked)


def _masks(found: _Source) -> tuple[dict[str, CocoMasks], list[str]]:
    """Masks by column of every category with outlines, and warnings about images that are left out."""
    masks: dict[str, CocoMasks] = {}
    warnings = []
    for ours, category in found.categories.items():
        ids = found.ids(category)
        partly = {one.image_id for one in found.coco.annotations if one.category_id in ids and not one.segmentation}
        drawn = masks_of(found.coco, category, found.file.name, without=partly)
        if not drawn:
            continue
        column = _column(ours)
        if column in masks:
            cure = "name each with --category ORGAN='CATEGORY'"
            raise DatasetRefused(expected("one category for each organ", f"several for {column}", cure))
        masks[column] = drawn
        if partly:
            warnings.append(f"{len(partly)} images have boxes of {ours} without an outline: their {column} is unknown")
    return masks, warnings


def _column(organ: str) -> str:
    """The mask column; the side of a body comes last there, as in ``lung_left``."""
    words = label_words(organ)
    if not words:
        cure = "name it with --category ORGAN='CATEGORY'"
        raise DatasetRefused(expected("a category with letters or digits in its name", f"'{organ}'", cure))
    return own_mask_column(" ".join(sorted(words, key=lambda word: word in _SIDES)))


def _box_labels(found: _Source) -> dict[int, str]:
    return {number: ours for ours, category in found.categories.items() for number in found.ids(category)}


def _labels(found: _Source, options: ImportOptions) -> tuple[dict[str, dict[str, float]], dict[str, str], str]:
    """Label columns by path, what ``dataset.toml`` says of them, and a note."""
    if not options.label_columns:
        return {}, {}, "labels: none; --label-columns A,B makes labels of categories, absent where not annotated"
    columns = {}
    for category in options.label_columns:
        ids = found.ids(category)
        present = {one.image_id for one in found.coco.annotations if one.category_id in ids}
        columns[LABEL_PREFIX + category] = {i.file_name: float(i.id in present) for i in found.coco.images}
    return columns, {"label_policy": _LABEL_POLICY}, f"labels: {_LABEL_POLICY}"


def _unlisted(root: Path, listed: Iterable[str]) -> list[str]:
    """Images beside the listed ones; other folders may hold masks, or anything."""
    known = set(listed)
    folders = sorted({(root / path).parent for path in known})
    files = [f for folder in folders for f in sorted(folder.iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES]
    paths = [f.relative_to(root).as_posix() for f in files if f.is_file() and not f.name.startswith(".")]
    return [path for path in paths if path not in known]


def _entries(found: _Source, options: ImportOptions, paths: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row for each path: what its entry says of it, else what its DICOM header says."""
    import pandas as pd

    extras = _extras(found.coco)
    keys = list(dict.fromkeys(key for entry in extras.values() for key in entry))
    _require_keys(options.columns, keys, found.file.name)
    chosen, notes = choose_columns(keys, options.columns, _FROM_ENTRIES)
    raw = pd.DataFrame([{key: extras.get(path, {}).get(key) for key in keys} for path in paths], dtype="str")
    own = take_columns(raw, chosen).reindex(range(len(paths)))
    headers = pd.DataFrame([_header(found.root, path) for path in paths])
    return own.combine_first(headers).assign(path=paths), notes


def _extras(coco: Coco) -> dict[str, dict[str, str]]:
    """Plain values of the further keys of each entry by path, as text; a licence by its name."""
    given = coco.licenses if isinstance(coco.licenses, list) else []
    licences = {str(one.get("id")): one.get("name") for one in given if isinstance(one, dict)}
    extras: dict[str, dict[str, str]] = {}
    for image in coco.images:
        entry = dict(image.model_extra or {})
        if "license" in entry:
            entry["license"] = licences.get(str(entry["license"]))
        plain = {key: str(value).strip() for key, value in entry.items() if isinstance(value, str | int | float)}
        # A column mask_x or label_x would be taken as masks or labels, which it is not.
        extras[image.file_name] = {k: v for k, v in plain.items() if v and not k.startswith(("mask", "label"))}
    return extras


def _require_keys(asked: Mapping[str, str], keys: list[str], name: str) -> None:
    for ours, key in asked.items():
        if ours not in _FROM_ENTRIES:
            cure = "masks, boxes and labels come from annotations"
            raise UsageError(expected(f"--map with one of {', '.join(_FROM_ENTRIES)}", f"'{ours}'", cure))
        if key not in keys:
            there = ", ".join(f"'{k}'" for k in keys) or "no further keys"
            cure = "name one of those, or use --patient-pattern"
            raise DatasetRefused(expected(f"images with a key '{key}' in {name}", there, cure))


def _header(root: Path, path: str) -> dict[str, object]:
    row = header_row(root / path, root) if is_dicom(root / path) else None
    return row or {"path": path}


def _patient_warnings(table: pd.DataFrame) -> list[str]:
    known = table["patient"].notna() if "patient" in table else None
    if known is None or not known.any():
        return [NO_PATIENTS]
    return [] if known.all() else [f"{int((~known).sum())} images name no patient: each counts as one of its own"]
