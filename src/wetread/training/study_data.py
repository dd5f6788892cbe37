"""Studies of a manifest: which images belong together, and what the label of a study is.

A study is known by its patient and its name, so that two patients may have a ``study1``. Images that
contradict each other are refused or resolved by the stated policy; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.columns import LABEL_PREFIX
from wetread.datasets.manifest import DatasetMeta
from wetread.errors import DatasetRefused, expected
from wetread.training.data import labels_of, targets_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIXED", "Bags", "LabelPolicy", "Level", "bags_of"]

Level = Literal["study", "patient"]
LabelPolicy = Literal["refuse", "any", "majority"]
MIXED = "(mixed)"
"""Value of a column in which the images of a study differ."""
_KEPT = ("split", "source", "view", "sex", "age", "body_part", "laterality", "fold")
"""Columns that a study takes from its images, for subgroups and tables."""


@dataclass(frozen=True)
class Bags:
    """B studies over a table of images.

    ``table``: one row for each, with ``path`` (the study's name), ``patient``, ``study``, labels and the number of
    ``images``. ``rows``: positions of its images in the image table. ``targets``: (B, outputs) 1, 0 or NaN.
    """

    table: pd.DataFrame
    rows: tuple[NDArray[np.intp], ...]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.intp]) -> Bags:
        """The studies at ``index``, in that order."""
        return Bags(self.table.iloc[index], tuple(self.rows[i] for i in index), self.targets[index])

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of each study (B,); a study without one is its own patient."""
        alone = self.table["patient"].isna()
        return np.where(alone, self.table["path"].astype(str), self.table["patient"].astype(str)).astype(np.str_)

    @property
    def lengths(self) -> list[int]:
        """Number of images of each study."""
        return [len(rows) for rows in self.rows]


def bags_of(table: pd.DataFrame, meta: DatasetMeta, level: Level = "study", policy: LabelPolicy = "refuse") -> Bags:
    """Gather the images of ``table`` into studies (or patients), in the order of their names.

    ``policy``: ``refuse`` images of a study that differ in their labels, ``any``: positive if any image is,
    ``majority``: the label that most images have. A study is negative only if no image is unknown.

    Raises:
        DatasetRefused: images without a study, or labels that contradict each other under ``refuse``.
    """
    import pandas as pd

    names = _names(table, level)
    order = np.argsort(names, kind="stable")
    starts = np.flatnonzero(np.r_[True, names[order][1:] != names[order][:-1]])
    rows = tuple(np.sort(part) for part in np.split(order, starts[1:]))
    images = targets_of(table, meta)
    _refuse_contradictions(table, images, rows, (level, policy))
    if policy == "any" and meta.task == "multiclass":
        raise DatasetRefused(
            expected("labels of which one is positive, for --label-policy any", "exclusive classes", "use majority")
        )
    targets = np.stack([_target(images[part], policy, softmax=meta.task == "multiclass") for part in rows])
    columns: dict[str, Any] = {"path": [str(names[part[0]]) for part in rows]}
    columns["patient"] = [table["patient"].iloc[part[0]] for part in rows]
    columns["study"] = columns["path"]
    columns["images"] = [len(part) for part in rows]
    for name in _KEPT:
        if name in table.columns:
            values = table[name].to_numpy(dtype=object)
            columns[name] = [_common(values[part]) for part in rows]
    return Bags(pd.DataFrame(columns | _labels(targets, meta)), rows, targets)


def _names(table: pd.DataFrame, level: Level) -> NDArray[np.str_]:
    """Name of the study of each image (M,)."""
    missing = int(table[level].isna().sum()) if level in table.columns else len(table)
    if missing:
        other = "study" if level == "patient" else "patient"
        cure = f"import with a column {level}" + (f", or use --level {other}" if table[other].notna().all() else "")
        raise DatasetRefused(expected(f"a {level} for each of {len(table)} images", f"{missing} without", cure))
    names = table[level].astype(str)
    if level == "study" and table["patient"].notna().all():
        several = table.groupby(level)["patient"].nunique() > 1
        if several.any():
            names = table["patient"].astype(str) + "/" + names
    return names.to_numpy(dtype=np.str_)


def _refuse_contradictions(
    table: pd.DataFrame, images: NDArray[np.float32], rows: tuple[NDArray[np.intp], ...], how: tuple[Level, LabelPolicy]
) -> None:
    level, policy = how
    if policy != "refuse":
        return
    wrong = [part for part in rows if _differ(images[part])]
    if wrong:
        first, *_, last = (str(table["path"].iloc[row]) for row in _two_that_differ(wrong[0], images))
        plural = "studies" if level == "study" else "patients"
        raise DatasetRefused(
            expected(
                f"one label for all images of a {level}",
                f"{len(wrong)} {plural} with more than one, e.g. {first} and {last}",
                "mend the labels, or say which holds: --label-policy any or majority",
            )
        )


def _differ(targets: NDArray[np.float32]) -> bool:
    return bool(((targets == 1).any(0) & (targets == 0).any(0)).any())


def _two_that_differ(part: NDArray[np.intp], images: NDArray[np.float32]) -> tuple[int, int]:
    column = int(np.argmax((images[part] == 1).any(0) & (images[part] == 0).any(0)))
    return int(part[np.argmax(images[part, column] == 1)]), int(part[np.argmax(images[part, column] == 0)])


def _target(images: NDArray[np.float32], policy: LabelPolicy, *, softmax: bool) -> NDArray[np.float32]:
    """Target (outputs,) of one study from those of its images (n, outputs)."""
    if softmax:
        known = images[~np.isnan(images).any(1)]
        if not len(known):
            return np.full(images.shape[1], np.nan, np.float32)
        chosen: NDArray[np.float32] = np.eye(images.shape[1], dtype=np.float32)[int(known.sum(0).argmax())]
        return chosen
    positive, negative = (images == 1).sum(0), (images == 0).sum(0)
    if policy == "majority":
        return np.where(positive + negative == 0, np.nan, positive >= negative).astype(np.float32)
    unknown = np.isnan(images).any(0)
    return np.where(positive > 0, 1.0, np.where(unknown, np.nan, 0.0)).astype(np.float32)


def _labels(targets: NDArray[np.float32], meta: DatasetMeta) -> dict[str, Any]:
    """Label columns as a manifest has them."""
    if meta.task == "multilabel":
        return {f"{LABEL_PREFIX}{label}": targets[:, k] for k, label in enumerate(labels_of(meta))}
    filled = np.nan_to_num(targets)
    chosen = filled[:, 0].astype(int) if meta.task == "binary" else filled.argmax(1)
    known = [not np.isnan(row).any() for row in targets]
    return {"label": [meta.classes[c] if k else None for c, k in zip(chosen, known, strict=True)]}


def _common(values: NDArray[np.object_]) -> object:
    import pandas as pd

    known = list(dict.fromkeys(value for value in values if not pd.isna(value)))
    if len(known) > 1:
        return MIXED if isinstance(known[0], str) else float(np.mean(known))
    return known[0] if known else None
