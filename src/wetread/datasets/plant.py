"""Planted shortcuts and planted signals: known truth for trying whether an audit finds what it should find.

A whole data set is written by :func:`plant`; :func:`planted_pixels` does the same to images in memory. Decided here:
who is drawn (all images of a patient or none), what is refused before anything is written, what is counted.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread import __version__
from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.manifest import Manifest
from wetread.datasets.masks import mask_column, own_mask_column
from wetread.datasets.plant_edits import Mask, Pixels, edited
from wetread.datasets.plant_files import image_names, write_image
from wetread.datasets.plant_spec import KINDS, RANDOM, Kind, PlantSpec, carriers, generator_of
from wetread.datasets.splits import assignment_sha256, groups_of
from wetread.errors import DatasetRefused, UsageError, expected
from wetread.provenance import atomic_folder, write_json_atomically
from wetread.runtime import in_order
from wetread.types import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMN",
    "KINDS",
    "PLANT_JSON",
    "RANDOM",
    "ClassCount",
    "Kind",
    "PlantSpec",
    "PlantSummary",
    "drawn_rows",
    "phi_coefficient",
    "plant",
    "planted_pixels",
    "summary_of",
    "with_mask_files",
]

COLUMN = "planted"
"""The boolean column that says which images carry it."""
PLANT_JSON = "plant.json"
"""The specification and what came of it, beside the manifest."""
_ORGANS_FILE = "organs.jsonl"
"""What ``wetread segment --out FOLDER`` lists its masks in."""

Progress = Callable[[int, int], None]
"""Called with (done, total) after each image."""


class ClassCount(Record):
    """How many images and patients of one class carry it.

    ``phi``: correlation (-1 to 1) over the images that were drawn between carrying it and being of this class; None
    where all or none are. A patient with images of two classes counts in both.
    """

    label: str
    images: int
    images_with: int
    patients: int
    patients_with: int
    phi: float | None


class PlantSummary(Record):
    """What came of a specification: counts of each class among the images that could be drawn.

    ``label``: the class that carries it, or :data:`RANDOM`. ``left_out``: images of other splits, or without a label.
    """

    label: str
    images: int
    images_with: int
    left_out: int
    classes: tuple[ClassCount, ...]

    @property
    def phi(self) -> float | None:
        """The phi coefficient of the class that carries it; None for the control and where it is not defined."""
        return next((c.phi for c in self.classes if c.label == self.label), None)


def planted_pixels(
    images: Sequence[Pixels],
    labels01: Iterable[float | None],
    patients: Sequence[object],
    spec: PlantSpec,
    masks: Sequence[Mask | None] | None = None,
) -> tuple[list[Pixels], NDArray[np.bool_]]:
    """Plant into images in memory; nothing is written.

    Args:
        images: n arrays, float32 (rows, columns) in [0, 1]; they are not changed.
        labels01: n values: 1 for the class that carries it, 0 for the others, None or NaN for unknown (never drawn).
        patients: n names; None is a patient of its own.
        spec: ``label`` matters only as :data:`RANDOM`; ``splits`` must be empty.
        masks: n masks, bool (rows, columns), for the organ kinds.

    Returns:
        n arrays, those that were not drawn as they were handed in, and bool (n,): who carries it. With
        ``keep_size`` False the kind ``resolution`` gives smaller arrays.

    Raises:
        UsageError: Lengths that differ, labels other than 0 and 1, splits, or a mask that is missing or empty.
    """
    labels = np.array(list(labels01), np.float64)
    if not len(images) == len(labels) == len(patients) == len(images if masks is None else masks):
        got = f"{len(images)} images, {len(labels)} labels, {len(patients)} patients"
        raise UsageError(expected("a label, a patient and (if any) a mask for each image", got, "pair them"))
    if spec.splits:
        raise UsageError(expected("no splits for images in memory", ", ".join(spec.splits), "select the images first"))
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise UsageError(expected("labels of 0 and 1", "others", "mark the class that carries it with 1"))
    names = [f"image {i}" if name is None else f"patient {name}" for i, name in enumerate(patients)]
    drawn = carriers(names, labels == 1, spec)
    if spec.label != RANDOM:
        drawn &= ~np.isnan(labels)
    made = list(images)
    for i in (int(i) for i in np.flatnonzero(drawn)):
        mask = None if masks is None else masks[i]
        rng = generator_of(spec, f"image {i}")
        made[i] = edited(spec.kind, images[i], spec.strength, rng, mask=mask, keep_size=spec.keep_size)
    return made, drawn


def plant(manifest: Manifest, spec: PlantSpec, out: Path, progress: Progress | None = None) -> Manifest:
    """Write a copy of a data set, into which ``spec`` is planted, to the new folder ``out``.

    Every image is written anew, whether it carries it or not, so that the format tells nothing: PNG of 8 bits,
    or 16 where the original has more and its grey values need them (see ``write_image``); for kind ``jpeg`` JPEG of
    quality 95 for those that do not carry it. The table gets the column :data:`COLUMN`; masks stay where they are,
    unless images get another size. ``out`` appears whole or not at all.

    Raises:
        UsageError: ``out`` holds something, or a class, split or organ that the data set does not have.
        DatasetRefused: No labels, no masks for an organ kind, already planted, nobody drawn, files that are missing.
        ImageRefused: An image that cannot be read.
    """
    label = _require_plantable(manifest, spec)
    manifest.require_files()
    drawn = drawn_rows(manifest, spec)
    if not drawn.any():
        cure = "take another --seed, or more patients"
        raise DatasetRefused(expected("at least one image that carries it", f"none of {len(drawn)}", cure))
    with atomic_folder(out, failure=DatasetRefused) as part:
        rows = list(_written(manifest, spec, drawn, part, progress))
        done = _planted_manifest(manifest, spec, part, rows, drawn)
        done.save(part)
        facts = {
            "spec": spec.model_dump(mode="json") | {"label": label},
            "summary": summary_of(done, spec).model_dump(mode="json"),
            "planted_into": manifest.meta.name,
            "wetread": __version__,
        }
        write_json_atomically(part / PLANT_JSON, facts)
    return replace(done, folder=out.resolve())


def drawn_rows(manifest: Manifest, spec: PlantSpec) -> NDArray[np.bool_]:
    """Which rows of the table carry it: bool (n,). Raises as :func:`plant` for a label, a split or masks."""
    label = _require_plantable(manifest, spec)
    able = _drawable(manifest, spec)
    positive = np.zeros(len(able), np.bool_)
    if label != RANDOM:
        positive = _is_of(manifest, label)[0] & able
    return carriers(_patients(manifest.table), positive, spec) & able


def summary_of(planted: Manifest, spec: PlantSpec) -> PlantSummary:
    """Count who carries it in a manifest that :func:`plant` returned."""
    carries = planted.table[COLUMN].to_numpy(dtype=bool)
    able = _drawable(planted, spec)
    patients = np.array(_patients(planted.table))
    return PlantSummary(
        label=_label(planted, spec),
        images=int(able.sum()),
        images_with=int((carries & able).sum()),
        left_out=int((~able).sum()),
        classes=tuple(_count(planted, name, carries, able, patients) for name in planted.meta.classes),
    )


def phi_coefficient(carries: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float | None:
    """Correlation of two bool (n,) vectors, -1 to 1 (Yule 1912); None where one of them is constant."""
    if carries.all() or positive.all() or not carries.any() or not positive.any():
        return None
    return float(np.corrcoef(carries, positive)[0, 1])


def with_mask_files(manifest: Manifest, folder: Path, organ: str) -> Manifest:
    """The manifest with the masks of an organ that lie in ``folder``, as column ``mask_<organ>``.

    ``folder`` is what ``wetread segment --out FOLDER --format png`` wrote of these images, or holds ``<path>.png``
    for an image ``<path>`` (with or without the suffix of the image). Images without a mask stay without.

    Raises :class:`DatasetRefused` where not one image has a mask there.
    """
    listed = _listed_masks(folder, organ)
    cells = [_mask_of(path, folder, listed) for path in manifest.table["path"]]
    if not any(cells):
        cure = f"make them: wetread segment {manifest.root} --out FOLDER --format png"
        raise DatasetRefused(expected(f"masks of {organ} below {folder}", "none that fits an image", cure))
    table = manifest.table.copy()
    table[own_mask_column(organ)] = cells
    return manifest.with_table(table)


def _listed_masks(folder: Path, organ: str) -> dict[str, Path]:
    """Mask of each image that ``organs.jsonl`` lists, by the name that the image has there."""
    file = folder / _ORGANS_FILE
    if not file.is_file():
        return {}
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            reading = json.loads(line)
            parts = {one["organ"]: one["files"] for one in reading["organs"]}
            name = str(reading["image"]["name"])
        except (ValueError, TypeError, KeyError):
            cure = "write it again with wetread segment"
            raise DatasetRefused(expected("organs.jsonl of wetread segment", f"another in {folder}", cure)) from None
        if "png" in parts.get(organ, {}):
            found[name] = folder / parts[organ]["png"]
    return found


def _mask_of(path: str, folder: Path, listed: dict[str, Path]) -> str | None:
    if listed:
        hit = listed.get(path)
        return str(hit.resolve()) if hit is not None else None
    places = (folder / f"{path}.png", (folder / path).with_suffix(".png"))
    return next((str(place.resolve()) for place in places if place.is_file()), None)


def _require_plantable(manifest: Manifest, spec: PlantSpec) -> str:
    """Refuse what cannot be planted, before anything is written; return the class that carries it."""
    table = manifest.table
    if COLUMN in table.columns:
        cure = "plant into the original"
        raise DatasetRefused(expected("a data set without planted images", f"a column '{COLUMN}'", cure))
    label = _label(manifest, spec)
    missing = [split for split in spec.splits if not (table["split"] == split).any()]
    if missing:
        cure = "divide it first: wetread dataset split"
        raise UsageError(expected("splits of the data set", f"'{missing[0]}' without an image", cure))
    if spec.needs_mask:
        _require_masks(manifest, spec)
    return label


def _label(manifest: Manifest, spec: PlantSpec) -> str:
    classes = manifest.meta.classes
    if spec.label == RANDOM:
        return RANDOM
    if not classes:
        cure = f"import labels with it, or plant the control with --label {RANDOM}"
        raise DatasetRefused(expected("a data set with labels", f"{manifest.meta.name} without", cure))
    if spec.label is None:
        if manifest.meta.task == "binary":
            return classes[1]
        names = ", ".join(classes)
        raise UsageError(expected("a label that carries it", f"none, of the classes {names}", "name one with --label"))
    if spec.label not in classes:
        near = difflib.get_close_matches(spec.label, classes, n=1, cutoff=0.5)
        cure = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(classes)}, or {RANDOM}"
        raise UsageError(expected("a class of the data set", f"'{spec.label}'", cure))
    return spec.label


def _require_masks(manifest: Manifest, spec: PlantSpec) -> None:
    column = mask_column(spec.organ, manifest)
    able = manifest.table[_drawable(manifest, spec)]
    without = len(able) if column is None else int(able[column].isna().sum())
    if without:
        got = f"{without} of {len(able)} images without one"
        cure = f"make them: wetread segment {manifest.root} --out FOLDER --format png, then --masks FOLDER"
        raise DatasetRefused(expected(f"a mask of {spec.organ} for each image", got, cure))


def _drawable(manifest: Manifest, spec: PlantSpec) -> NDArray[np.bool_]:
    """Images that can be drawn: of the asked splits, and with a label unless that does not matter."""
    table = manifest.table
    able = table["split"].isin(spec.splits).to_numpy(dtype=bool) if spec.splits else np.ones(len(table), np.bool_)
    return able if spec.label == RANDOM else able & _is_of(manifest, _label(manifest, spec))[1]


def _is_of(manifest: Manifest, label: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images are of a class, and of which that is known: two bool (n,)."""
    if manifest.meta.task == "multilabel":
        column = manifest.table[LABEL_PREFIX + label]
        return (column == 1).to_numpy(dtype=bool), column.notna().to_numpy(dtype=bool)
    column = manifest.table["label"]
    return (column == label).to_numpy(dtype=bool), column.notna().to_numpy(dtype=bool)


def _patients(table: pd.DataFrame) -> list[str]:
    """A name for what belongs together: patient, else study, else path; the first of those that are linked."""
    own = [
        f"patient {patient}" if isinstance(patient, str) else f"study {study}" if isinstance(study, str) else path
        for patient, study, path in zip(table["patient"], table["study"], table["path"], strict=True)
    ]
    groups = groups_of(table)
    first: dict[int, str] = {}
    for group, name in zip(groups, own, strict=True):
        first[group] = min(name, first.get(group, name))
    return [first[group] for group in groups]


def _count(
    manifest: Manifest, label: str, carries: NDArray[np.bool_], able: NDArray[np.bool_], patients: NDArray[np.str_]
) -> ClassCount:
    positive, known = _is_of(manifest, label)
    able = able & known
    of_class = positive & able
    return ClassCount(
        label=label,
        images=int(of_class.sum()),
        images_with=int((of_class & carries).sum()),
        patients=len(np.unique(patients[of_class])),
        patients_with=len(np.unique(patients[of_class & carries])),
        phi=phi_coefficient(carries[able], positive[able]),
    )


def _written(
    manifest: Manifest, spec: PlantSpec, drawn: NDArray[np.bool_], part: Path, progress: Progress | None
) -> Iterator[dict[str, Any]]:
    """Write every image; give the cells that changed, in the order of the table."""
    names = image_names(list(manifest.table["path"]), ".jpg" if spec.kind == "jpeg" else ".png")
    jobs = zip((row for _, row in manifest.table.iterrows()), names, drawn, strict=True)
    done = in_order(lambda job: write_image(manifest, job[0], spec, (part, job[1]), carries=bool(job[2])), jobs)
    for number, (row, name) in enumerate(zip(done, names, strict=True), 1):
        yield row | {"path": name}
        if progress is not None:
            progress(number, len(names))


def _planted_manifest(
    manifest: Manifest, spec: PlantSpec, folder: Path, rows: list[dict[str, Any]], drawn: NDArray[np.bool_]
) -> Manifest:
    import pandas as pd

    changed = pd.DataFrame(rows, index=manifest.table.index)
    table = manifest.table.assign(**{str(name): changed[name] for name in changed.columns}, phash=None)
    table[COLUMN] = drawn
    meta = manifest.meta
    split = meta.split and meta.split.model_copy(update={"sha256": assignment_sha256(table)})
    meta = meta.model_copy(
        update={
            "name": f"{meta.name}-{spec.kind}",
            "root": ".",
            "mask_root": None if spec.resizes else str(manifest.mask_path_of("")),
            "importer": "plant",
            "warnings": (_warning(manifest, spec, int(drawn.sum())), *meta.warnings),
            "split": split,
        }
    )
    return Manifest(table, meta, folder)


def _warning(manifest: Manifest, spec: PlantSpec, carry: int) -> str:
    label = _label(manifest, spec)
    how = "independent of the label" if label == RANDOM else f"correlation {spec.correlation:g} with {label}"
    return (
        f"planted: {spec.kind} of strength {spec.strength:g}, {how}, is artificial and on {carry} of "
        f"{len(manifest.table)} images (column {COLUMN}, {PLANT_JSON}); for tests of an audit, not for a reader to use"
    )
