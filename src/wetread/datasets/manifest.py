"""The manifest: one table of images and what its columns mean, as ``manifest.parquet`` + ``dataset.toml``.

A manifest is valid by construction: paths present and unique, labels among the classes, splits
among train, val and test. Whether it is *good* is for :mod:`wetread.datasets.check` to say.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wetread.datasets.columns import (
    LABEL_PREFIX,
    SPLITS,
    conform,
    guess_negative,
    label_columns,
    read_table,
)
from wetread.errors import DatasetRefused, expected
from wetread.provenance import atomic_file
from wetread.types import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DatasetMeta", "Manifest", "SplitMeta", "infer_classes", "load_manifest"]

MANIFEST_FILE = "manifest.parquet"
META_FILE = "dataset.toml"
_SHOWN = 5
"""Examples named in a refusal: enough to find the cause, few enough to read."""


class SplitMeta(BaseModel):
    """How the split was made. ``sha256`` is of the sorted lines ``path<TAB>split<TAB>fold``.

    ``given`` names the splits that came with the data; they stay when it is divided again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    seed: int | None = None
    sha256: str
    fractions: dict[str, float] = Field(default_factory=dict)
    folds: int | None = None
    given: tuple[str, ...] = ()


class DatasetMeta(BaseModel):
    """What ``dataset.toml`` says. ``classes`` are ordered; a binary task has (negative, positive).

    Empty ``classes`` mean images without labels. ``root`` is the folder that paths start from,
    absolute or relative to the manifest's folder; ``mask_root`` the one that masks start from, where
    that is another. ``allowed_flips`` are augmentations that keep
    the label true; empty by default, because a mirrored chest has its heart on the wrong side.
    ``warnings`` are what the importer could not settle; every check shows them again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: Task = "binary"
    classes: tuple[str, ...] = ()
    root: str = "."
    mask_root: str | None = None
    licence: str | None = None
    label_policy: str = "a null label is unknown, never negative"
    allowed_flips: tuple[str, ...] = ()
    organ: str | None = None
    importer: str | None = None
    warnings: tuple[str, ...] = ()
    split: SplitMeta | None = None

    @model_validator(mode="after")
    def _classes_fit_task(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("expected classes that differ, got a repeated one; name each once")
        if self.classes and self.task == "binary" and len(self.classes) != 2:
            raise ValueError(
                f"expected 2 classes (negative, positive) for a binary task, got "
                f"{len(self.classes)}; set task to multiclass"
            )
        return self

    @property
    def labelled(self) -> bool:
        """Whether the images have labels at all."""
        return bool(self.classes)


@dataclass(frozen=True)
class Manifest:
    """A table of images with what it means. ``folder`` is where relative roots start from."""

    table: pd.DataFrame
    meta: DatasetMeta
    folder: Path

    def __post_init__(self) -> None:
        if "path" not in self.table.columns:
            raise DatasetRefused(
                expected(
                    "a column 'path'",
                    f"the columns {_names(self.table.columns)}",
                    "map the column that holds the file names with --map path=NAME",
                )
            )
        object.__setattr__(self, "table", conform(self.table))
        _validate(self.table, self.meta)

    @property
    def root(self) -> Path:
        """The folder that the ``path`` column starts from."""
        return (self.folder / self.meta.root).resolve()

    def path_of(self, row: pd.Series | str) -> Path:
        """The file of one row (or of one value of the ``path`` column)."""
        relative = row if isinstance(row, str) else str(row["path"])
        return self.root / relative

    def mask_path_of(self, value: str) -> Path:
        """The file of one cell of a mask column."""
        start = self.meta.root if self.meta.mask_root is None else self.meta.mask_root
        return (self.folder / start).resolve() / value

    def with_table(self, table: pd.DataFrame, **meta: Any) -> Manifest:
        """A copy with another table and, by name, other fields of the meta data."""
        changed = self.meta.model_copy(update=meta) if meta else self.meta
        return replace(self, table=table, meta=changed)

    def require_files(self) -> None:
        """Raise :class:`DatasetRefused` where files of the table do not exist."""
        missing = [p for p in self.table["path"] if not self.path_of(p).is_file()]
        if missing:
            raise DatasetRefused(
                expected(
                    f"{len(self.table)} image files below {self.root}",
                    f"{len(missing)} that do not exist, e.g. {_names(missing)}",
                    "check the root folder (--root) or import again",
                )
            )

    def save(self, folder: Path) -> Path:
        """Write ``manifest.parquet`` and ``dataset.toml``, each complete or not at all."""
        meta = self.meta.model_copy(update={"root": _root_seen_from(self.root, folder)})
        if meta.mask_root is not None:
            meta = meta.model_copy(update={"mask_root": _root_seen_from(self.mask_path_of(""), folder)})
        with atomic_file(folder / MANIFEST_FILE) as part:
            self.table.to_parquet(part, index=False)
        with atomic_file(folder / META_FILE) as part:
            part.write_text(_to_toml(meta), encoding="utf-8")
        return folder / MANIFEST_FILE


def load_manifest(path: Path | str, *, root: Path | None = None) -> Manifest:
    """Read a dataset folder, a ``.parquet`` or a ``.csv`` manifest.

    ``root`` overrides where the images are. A table without a ``dataset.toml`` beside it gets its
    task and classes from its labels. Raises :class:`DatasetRefused`.
    """
    given = Path(path)
    file = _table_file(given)
    table = read_table(file)
    meta_file = file.parent / META_FILE
    if meta_file.is_file():
        meta = _read_meta(meta_file)
    else:
        task, classes = infer_classes(table)
        meta = DatasetMeta(name=file.stem, task=task, classes=tuple(classes))
    if root is not None:
        meta = meta.model_copy(update={"root": str(root.resolve())})
    return Manifest(table, meta, file.parent.resolve())


def infer_classes(table: pd.DataFrame, negative: str | None = None) -> tuple[Task, list[str]]:
    """Task and ordered classes from the labels of a table; the negative class comes first.

    Raises :class:`DatasetRefused` for a single class, and for two classes of which neither name
    means *nothing found* while ``negative`` was not given.
    """
    several = label_columns(table)
    if several:
        return "multilabel", [c.removeprefix(LABEL_PREFIX) for c in several]
    if "label" not in table.columns:
        return "binary", []
    classes = sorted({str(v).strip() for v in table["label"].dropna()})
    if not classes:
        return "binary", []
    if len(classes) == 1:
        raise DatasetRefused(
            expected(
                "at least two classes",
                f"only '{classes[0]}'",
                "add images of another class, or check which column holds the labels",
            )
        )
    first = _negative(classes, negative)
    ordered = sorted(classes, key=lambda c: (c != first, c))
    return ("binary" if len(classes) == 2 else "multiclass"), ordered


def _negative(classes: list[str], asked: str | None) -> str | None:
    if asked is not None and asked not in classes:
        raise DatasetRefused(expected("a negative class among the labels", f"'{asked}'", f"use one of {classes}"))
    found = asked or guess_negative(classes)
    if found is None and len(classes) == 2:
        raise DatasetRefused(
            expected(
                "to know which class is the negative one",
                f"'{classes[0]}' and '{classes[1]}'",
                f"say so, e.g. --negative '{classes[0]}'",
            )
        )
    return found


def _table_file(given: Path) -> Path:
    if given.is_dir():
        for name in (MANIFEST_FILE, "manifest.csv"):
            if (given / name).is_file():
                return given / name
        raise DatasetRefused(
            expected(
                f"a dataset folder with {MANIFEST_FILE}",
                f"{given} without one",
                f"import first: wetread dataset import {given} --out FOLDER",
            )
        )
    if not given.is_file():
        raise DatasetRefused(expected("a dataset folder or manifest", f"nothing at {given}", "check the path"))
    return given


def _read_meta(file: Path) -> DatasetMeta:
    try:
        return DatasetMeta.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            where, what = ".".join(str(p) for p in first["loc"]) or "the whole", first["msg"]
        else:
            where, what = "its syntax", str(error)
        raise DatasetRefused(expected(f"a valid {META_FILE}", f"in {where}: {what}", "mend that line")) from error


def _validate(table: pd.DataFrame, meta: DatasetMeta) -> None:
    if table.empty:
        raise DatasetRefused(expected("at least one image", "an empty table", "check the source"))
    _refuse_rows(table["path"].isna(), "a path in every row", "rows without one", "fill them in")
    _refuse(
        table["path"][table["path"].duplicated()],
        "each path once",
        "repeated paths",
        "merge the rows of one image, or use label_<class> columns for several labels",
    )
    _refuse(
        table["split"][table["split"].notna() & ~table["split"].isin(SPLITS)],
        f"splits among {', '.join(SPLITS)} or empty",
        "other values",
        "rename them in the table",
    )
    _validate_labels(table, meta)


def _validate_labels(table: pd.DataFrame, meta: DatasetMeta) -> None:
    if meta.task != "multilabel":
        _refuse(
            table["label"][table["label"].notna() & ~table["label"].isin(meta.classes)],
            f"labels among the classes {list(meta.classes)}",
            "other labels",
            f"add them to classes in {META_FILE}, or leave unknown labels empty",
        )
        return
    for name in meta.classes:
        column = LABEL_PREFIX + name
        if column not in table.columns:
            raise DatasetRefused(
                expected(
                    f"a column '{column}' for the class '{name}'",
                    f"the label columns {_names(label_columns(table))}",
                    f"add it or take the class out of {META_FILE}",
                )
            )
        values = table[column]
        _refuse_rows(
            values.notna() & ~values.isin([0, 1]),
            f"1, 0 or empty in '{column}'",
            "rows with another value",
            "write uncertain labels as empty",
        )


def _refuse(wrong: pd.Series, what: str, got: str, cure: str) -> None:
    if len(wrong):
        seen = _names(dict.fromkeys(str(v) for v in wrong))
        raise DatasetRefused(expected(what, f"{len(wrong)} {got}: {seen}", cure))


def _refuse_rows(wrong: pd.Series, what: str, got: str, cure: str) -> None:
    if bool(wrong.any()):
        first = int(wrong.to_numpy().argmax()) + 1
        raise DatasetRefused(expected(what, f"{int(wrong.sum())} {got}, the first is row {first}", cure))


def _names(values: object) -> str:
    names = [f"'{v}'" for v in values]  # type: ignore[attr-defined]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) if names else "none"


def _root_seen_from(root: Path, folder: Path) -> str:
    """Relative where the images lie below the manifest, so that the folder can be moved whole."""
    here = folder.resolve()
    return str(root.relative_to(here)) if root.is_relative_to(here) else str(root)


def _to_toml(meta: DatasetMeta) -> str:
    """TOML of the meta data; strings are written as JSON strings, which TOML reads alike."""
    values = meta.model_dump(mode="json", exclude_none=True)
    tables = {k: v for k, v in values.items() if isinstance(v, dict)}
    lines = [f"{k} = {_toml_value(v)}" for k, v in values.items() if k not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{k} = {_toml_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    # DEL is the one character that JSON leaves bare and TOML forbids
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
