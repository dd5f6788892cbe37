"""The predictions table: what it must hold, and how images become studies or patients.

Refused rather than guessed: missing columns, NaN or impossible probabilities, unknown classes,
the same image twice, a patient in two splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import DatasetRefused, SplitRefused, UsageError, expected
from wetread.evaluation.result import EvaluationSpec
from wetread.types import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MIXED", "PROBABILITY", "TARGET", "UNKNOWN", "Cases", "infer_classes", "read_predictions"]

PROBABILITY, TARGET = "probability_", "target_"
MIXED, UNKNOWN = "(mixed)", "(unknown)"
SUM_TOLERANCE = 1e-3
"""Class probabilities saved in half precision still sum to 1 within this."""
_SHOWN = 5


@dataclass(frozen=True)
class Cases:
    """The units (images, studies or patients) that are evaluated.

    ``probabilities``: (n, L) of ``labels``. ``targets``: (n, L) 1, 0 or NaN (unknown); for
    binary L = 1. ``truth``: (n,) class number, multi-class only. ``groups``: (n,) patients, or
    None when each unit is its own; ``patients`` how many, None when unknown. ``columns``: subgroup
    columns, as text.
    """

    spec: EvaluationSpec
    probabilities: NDArray[np.float64]
    targets: NDArray[np.float64]
    truth: NDArray[np.intp] | None
    groups: NDArray[np.str_] | None
    patients: int | None
    columns: dict[str, NDArray[np.str_]]
    images: int
    unlabelled: int
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, predictions: pd.DataFrame, spec: EvaluationSpec) -> Cases:
        """Check the table, choose the split, gather the level; raise :class:`DatasetRefused`."""
        _check_columns(predictions, spec)
        table = _choose_split(predictions, spec)
        _check_values(table, spec)
        warnings = _warnings(table, spec)
        images = len(table)
        if spec.level != "image":
            table = _gather(table, spec)
        table, unlabelled = _labelled(table, spec)
        targets, groups = _targets(table, spec), _groups(table)
        return cls(
            spec=spec,
            probabilities=table[_probability_columns(spec)].to_numpy(dtype=np.float64),
            targets=targets,
            truth=np.argmax(targets, axis=1) if spec.task == "multiclass" else None,
            groups=None if groups is None or np.unique(groups).size == len(groups) else groups,
            patients=None if groups is None else int(np.unique(groups).size),
            columns={name: _subgroup_values(table[name], name) for name in spec.by},
            images=images,
            unlabelled=unlabelled,
            warnings=warnings,
        )


def read_predictions(path: str) -> pd.DataFrame:
    """Return the table in a ``.parquet`` or ``.csv`` file; raise :class:`DatasetRefused` else."""
    import pandas as pd

    kind = path.rsplit(".", 1)[-1].lower()
    if kind not in ("parquet", "csv"):
        raise DatasetRefused(
            expected("a .parquet or .csv table of predictions", path, "name such a file or a run folder")
        )
    try:
        if kind == "parquet":
            return pd.read_parquet(path)
        text = {"image": str, "patient": str, "study": str, "target": str}
        return pd.read_csv(path, dtype=text)
    except FileNotFoundError:
        cure = "name the predictions.parquet of a run folder"
        raise DatasetRefused(expected("a table of predictions", f"no file {path}", cure)) from None
    except (OSError, ValueError) as error:
        kinds = type(error).__name__
        raise DatasetRefused(
            expected(f"a readable {kind} table", f"{path} ({kinds})", "write it again, e.g. with pandas")
        ) from error


def infer_classes(predictions: pd.DataFrame) -> tuple[Task, tuple[str, ...]]:
    """Return task and classes that the columns of a predictions table imply.

    One probability column is binary, its label the positive class; several with ``target`` are
    multi-class, with ``target_<label>`` multi-label.
    """
    labels = [str(c).removeprefix(PROBABILITY) for c in predictions if str(c).startswith(PROBABILITY)]
    if not labels:
        raise DatasetRefused(expected("columns probability_<label>", list(map(str, predictions)), "rename the columns"))
    if any(str(c).startswith(TARGET) for c in predictions):
        return "multilabel", tuple(labels)
    if "target" not in predictions:
        raise DatasetRefused(
            expected("a column target or target_<label>", list(map(str, predictions)), "add the truth")
        )
    if len(labels) > 1:
        return "multiclass", tuple(labels)
    others = sorted({str(t) for t in predictions["target"].dropna()} - {labels[0]})
    if len(others) > 1:
        cure = "add a probability column for each class, or name the reader"
        if set(others) <= {"0", "1", "0.0", "1.0"}:
            cure = f"write class names in target, {labels[0]} and its opposite"
        raise DatasetRefused(
            expected(
                f"two classes in target beside probability_{labels[0]}",
                f"also {', '.join(others[:_SHOWN])}",
                cure,
            )
        )
    return "binary", (others[0] if others else f"not {labels[0]}", labels[0])


def _probability_columns(spec: EvaluationSpec) -> list[str]:
    return [PROBABILITY + label for label in spec.labels]


def _target_columns(spec: EvaluationSpec) -> list[str]:
    if spec.task == "multilabel":
        return [TARGET + label for label in spec.labels]
    return ["target"]


def _check_columns(table: pd.DataFrame, spec: EvaluationSpec) -> None:
    needed = ["image", *_probability_columns(spec), *_target_columns(spec), *spec.by]
    needed += [spec.level] if spec.level != "image" else []
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise DatasetRefused(
            expected(
                f"the columns {', '.join(needed)}",
                f"a table without {', '.join(missing)}",
                f"add them; it has {', '.join(map(str, table.columns[:12]))}",
            )
        )
    known = {PROBABILITY + name for name in spec.classes}
    strange = [c for c in map(str, table.columns) if c.startswith(PROBABILITY) and c not in known]
    if strange:
        raise DatasetRefused(
            expected(
                f"probabilities of the classes {', '.join(spec.classes)}",
                f"also {', '.join(strange[:_SHOWN])}",
                "evaluate with the reader that made the table",
            )
        )


def _choose_split(table: pd.DataFrame, spec: EvaluationSpec) -> pd.DataFrame:
    if "split" not in table.columns:
        if spec.split is not None:
            raise DatasetRefused(expected("a column split", "none", f"add it, or leave out the split {spec.split}"))
        return table
    present = sorted({str(s) for s in table["split"].dropna()})
    _refuse_shared_patients(table, present)
    if spec.split is None:
        if len(present) > 1:
            raise UsageError(expected("one split", f"{', '.join(present)} in one table", "choose with --split"))
        return table
    chosen = table[table["split"] == spec.split]
    if chosen.empty:
        raise DatasetRefused(expected(f"images of the split {spec.split}", f"splits {present}", "choose one of these"))
    return chosen


def _refuse_shared_patients(table: pd.DataFrame, splits: list[str]) -> None:
    if len(splits) < 2 or "patient" not in table.columns:
        return
    per_patient = table.dropna(subset=["patient", "split"]).groupby("patient")["split"].nunique()
    shared = int((per_patient > 1).sum())
    if shared:
        raise SplitRefused(
            expected(
                "every patient in one split",
                f"{shared} patients in more than one",
                "split by patient and train again: wetread dataset split",
            )
        )


def _check_values(table: pd.DataFrame, spec: EvaluationSpec) -> None:
    if table.empty:
        raise DatasetRefused(expected("at least one prediction", "none", "predict some images first"))
    twice = table["image"].astype(str).duplicated()
    if twice.any():
        names = ", ".join(table["image"][twice].astype(str).head(_SHOWN))
        raise DatasetRefused(expected("each image once", f"{int(twice.sum())} repeated: {names}", "remove the repeats"))
    _check_probabilities(table, spec)
    _check_targets(table, spec)


def _check_probabilities(table: pd.DataFrame, spec: EvaluationSpec) -> None:
    columns = _probability_columns(spec)
    for column in columns:
        values = _numbers(table[column], column)
        bad = ~np.isfinite(values)
        if bad.any():
            raise DatasetRefused(
                expected(
                    f"a probability for each image in {column}",
                    f"{int(bad.sum())} NaN or infinite, first {table['image'].iloc[int(bad.argmax())]}",
                    "leave images that were not read out of the table, and count them as failures",
                )
            )
        outside = (values < 0) | (values > 1)
        if outside.any():
            raise DatasetRefused(
                expected(
                    f"{column} between 0 and 1",
                    f"{values[outside][0]:.4g} for {table['image'].iloc[int(outside.argmax())]}",
                    "apply sigmoid or softmax to the logits",
                )
            )
    if spec.task == "multiclass":
        sums = table[columns].to_numpy(dtype=np.float64).sum(axis=1)
        if np.abs(sums - 1).max() > SUM_TOLERANCE:
            raise DatasetRefused(
                expected(
                    "class probabilities that sum to 1",
                    f"sums from {sums.min():.4g} to {sums.max():.4g}",
                    "apply softmax, or call the task multilabel",
                )
            )


def _numbers(column: pd.Series[Any], name: str) -> NDArray[np.float64]:
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DatasetRefused(expected(f"numbers in {name}", "text", "write numbers or leave it empty")) from None


def _check_targets(table: pd.DataFrame, spec: EvaluationSpec) -> None:
    if spec.task == "multilabel":
        for column in _target_columns(spec):
            values = _numbers(table[column], column)
            wrong = ~np.isnan(values) & (values != 0) & (values != 1)
            if wrong.any():
                raise DatasetRefused(
                    expected(f"1, 0 or nothing in {column}", f"{values[wrong][0]:.4g}", "map the labels first")
                )
        return
    found = {str(value) for value in table["target"].dropna()}
    strange = sorted(found - set(spec.classes))
    if strange:
        raise DatasetRefused(
            expected(
                f"targets among the reader's classes {', '.join(spec.classes)}",
                f"{', '.join(strange[:_SHOWN])}",
                "rename the labels, or choose a reader of these classes",
            )
        )


def _warnings(table: pd.DataFrame, spec: EvaluationSpec) -> tuple[str, ...]:
    found = []
    if "patient" not in table.columns:
        found.append("no column patient: every image is counted as a patient, so intervals may be too narrow")
    elif table["patient"].isna().any():
        missing = int(table["patient"].isna().sum())
        found.append(f"{missing} images without a patient: each is counted as a patient of its own")
    if spec.level != "image" and spec.operating_points:
        found.append(
            f"operating points were chosen on single images and are applied to the {spec.aggregation} "
            f"probability of each {spec.level}"
        )
    return tuple(found)


def _gather(table: pd.DataFrame, spec: EvaluationSpec) -> pd.DataFrame:
    """Return one row for each study or patient."""
    if spec.task == "multiclass" and spec.aggregation == "max":
        raise UsageError(
            expected("the mean of class probabilities", "max", "the maxima of classes do not sum to 1; use mean")
        )
    keys = [name for name in ("patient", spec.level) if name in table.columns]
    keys = list(dict.fromkeys(keys))
    missing = table[keys].isna().any(axis=1)
    if missing.any():
        raise DatasetRefused(
            expected(f"a {spec.level} for each image", f"{int(missing.sum())} without", "evaluate per image")
        )
    grouped = table.groupby(keys, sort=True)
    gathered = grouped[_probability_columns(spec)].agg(spec.aggregation)
    for column in _target_columns(spec):
        gathered[column] = grouped[column].agg(lambda values: _common_target(values, spec))
    for column in spec.by:
        if column not in keys:
            gathered[column] = grouped[column].agg(_common_value)
    result = gathered.reset_index()
    result["image"] = result[keys].astype(str).agg("/".join, axis=1)
    return result


def _common_target(values: pd.Series[Any], spec: EvaluationSpec) -> Any:
    """Return the truth of a study or patient: positive if any image is, unknown if that is unknown."""
    known = values.dropna()
    positive: Any = 1 if spec.task == "multilabel" else spec.classes[-1]
    if spec.task == "multiclass":
        if known.nunique() > 1:
            raise DatasetRefused(
                expected(
                    f"one class for each {spec.level}",
                    f"images of one {spec.level} with {known.nunique()} classes",
                    "evaluate per image",
                )
            )
        return known.iloc[0] if len(known) else None
    if (known == positive).any():
        return positive
    return None if len(known) < len(values) else known.iloc[0]


def _common_value(values: pd.Series[Any]) -> Any:
    known = values.dropna().unique()
    if len(known) > 1:
        return float(np.mean(known)) if values.dtype.kind in "fiu" else MIXED
    return known[0] if len(known) else None


def _labelled(table: pd.DataFrame, spec: EvaluationSpec) -> tuple[pd.DataFrame, int]:
    known = table[_target_columns(spec)].notna().any(axis=1)
    if not known.any():
        raise DatasetRefused(expected("images with known labels", f"{len(table)} images, all unknown", "add the truth"))
    return table[known], int((~known).sum())


def _targets(table: pd.DataFrame, spec: EvaluationSpec) -> NDArray[np.float64]:
    if spec.task == "multilabel":
        columns = [_numbers(table[column], column) for column in _target_columns(spec)]
        return np.stack(columns, axis=1)
    names = table["target"].astype(str).to_numpy()
    return np.stack([names == label for label in spec.labels], axis=1).astype(np.float64)


def _groups(table: pd.DataFrame) -> NDArray[np.str_] | None:
    if "patient" not in table.columns:
        return None
    alone = table["patient"].isna().to_numpy()
    names = table["patient"].astype(str).to_numpy(dtype=object)
    images = table["image"].astype(str).to_numpy(dtype=object)
    return np.where(alone, "\x00image " + images, names).astype(np.str_)


MAXIMUM_GROUPS = 40
"""A column with more values than this is a name or a measurement, not a subgroup."""

_BANDS = 4
"""Numbers with many values are cut into quarters."""

_FEW = 8
"""Numbers with at most this many values are taken as they are."""


def _subgroup_values(column: pd.Series[Any], name: str) -> NDArray[np.str_]:
    """Return the subgroup of each unit as text; numbers with many values in quarters."""
    if column.dtype.kind in "fiu" and column.nunique() > _FEW:
        values = column.to_numpy(dtype=np.float64)
        edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _BANDS + 1)))
        band = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        text = np.array(names)[band].astype(object)
        return np.where(np.isnan(values), UNKNOWN, text).astype(np.str_)
    if column.nunique() > MAXIMUM_GROUPS:
        raise UsageError(
            expected(
                f"a column with at most {MAXIMUM_GROUPS} values to form subgroups",
                f"{column.nunique()} in {name}",
                "choose a column such as sex, source or view",
            )
        )
    return np.asarray(column.astype(object).where(column.notna(), UNKNOWN).astype(str)).astype(np.str_)
