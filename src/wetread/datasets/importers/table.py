"""CSV, TSV and Parquet tables with any column names: mapped by flags, else guessed and shown."""

from __future__ import annotations

import difflib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.columns import COLUMNS, LABEL_PREFIX, NEGATIVE_WORDS, SYNONYMS, read_table
from wetread.datasets.importers.base import (
    Imported,
    ImportOptions,
    age_years,
    files_below,
    patients_by_pattern,
    posix,
    sex_letter,
    split_word,
)
from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TableImporter", "choose_columns", "labels_of", "take_columns"]

_TABLES = frozenset({".csv", ".tsv", ".tab", ".parquet"})
_DEFAULT_SEPARATOR = "|"
"""What NIH ChestX-ray14 puts between the findings of one image."""
_UNCERTAIN = {"-1", "-1.0", "u", "uncertain"}
"""CheXpert's and other tables' marks for *perhaps*; they become null."""
_YES = {"1", "1.0", "true", "yes", "y", "positive"}
_NO = {"0", "0.0", "false", "no", "n", "negative"}


class TableImporter:
    """One row per image, in a table beside the images or with ``--images FOLDER``."""

    name = "table"
    summary = "CSV, TSV or Parquet with one row per image, any column names"

    def recognise(self, source: Path) -> str | None:
        """A table file, or a folder with exactly one table in it."""
        file = _table_file(source)
        return f"table {file.name}" if file else None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        """Raises :class:`DatasetRefused` for absent columns and for images not found."""
        file = _table_file(source)
        if file is None:
            raise DatasetRefused(expected("a CSV, TSV or Parquet file", f"{source}", "name the table itself"))
        raw = read_table(file)
        chosen, notes = choose_columns(list(raw.columns), options.columns)
        if "path" not in chosen:
            raise DatasetRefused(
                expected(
                    "a column with the image files",
                    f"only {', '.join(map(repr, raw.columns))}",
                    "name it with --map path=COLUMN",
                )
            )
        table = take_columns(raw, chosen)
        labels, label_notes = labels_of(raw, chosen, options)
        root, paths, where = _find_images(table["path"], file.parent, options.images)
        table = table.assign(path=paths, **labels)
        table, more = patients_by_pattern(table, options.patient_pattern)
        notes += [*label_notes, where, *more]
        warnings = _split_warning(raw, chosen, table)
        if table["patient"].isna().all() if "patient" in table else True:
            warnings.append("no patient column: images of one patient may land in two splits")
        return Imported(table, root, tuple(notes), tuple(warnings))


def choose_columns(
    theirs: list[str], asked: dict[str, str], wanted: tuple[str, ...] = tuple(COLUMNS)
) -> tuple[dict[str, str], list[str]]:
    """Map our column names to theirs: what was asked, then equal names, then known synonyms.

    Raises :class:`UsageError` for a name that is not ours and :class:`DatasetRefused` for one that
    is not in the table; both messages say what there is and suggest the nearest.
    """
    for ours, name in asked.items():
        if ours not in COLUMNS:
            raise UsageError(
                expected(f"--map with one of {', '.join(COLUMNS)}", f"'{ours}'", _nearest(ours, list(COLUMNS)))
            )
        if name not in theirs:
            raise DatasetRefused(
                expected(
                    f"a column '{name}'",
                    f"the columns {', '.join(repr(c) for c in theirs)}",
                    _nearest(name, theirs),
                )
            )
    chosen, notes = dict(asked), []
    plain = {c.strip().lower().replace(" ", "_").replace("-", "_"): c for c in reversed(theirs)}
    for ours in wanted:
        taken = set(chosen.values())
        names = (ours, *SYNONYMS.get(ours, ()))
        hit = next((plain[n] for n in names if n in plain and plain[n] not in taken), None)
        if ours not in chosen and hit is not None:
            chosen[ours] = hit
    for ours, name in chosen.items():
        if ours != name:
            notes.append(f"{ours} <- column '{name}'" + ("" if ours in asked else " (guessed)"))
    return chosen, notes


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    match = next((n for n in names if close and n.lower() == close[0]), None)
    return f"did you mean '{match}'?" if match else "choose one of them"


def take_columns(raw: pd.DataFrame, chosen: dict[str, str]) -> pd.DataFrame:
    """Our columns and, unchanged, those of theirs that nothing was made of."""
    import pandas as pd

    words = {"split": split_word, "sex": sex_letter, "age": age_years}
    taken: dict[str, pd.Series] = {}
    for ours, name in chosen.items():
        column = raw[name]
        if ours in words:
            read = words[ours]
            values = [read(str(v)) if pd.notna(v) else None for v in column]
            column = pd.Series(values, index=raw.index)
        if ours != "label":
            taken[ours] = column
    rest = {c: raw[c] for c in raw.columns if c not in chosen.values() and c not in COLUMNS}
    return pd.DataFrame({**taken, **rest})


def labels_of(
    raw: pd.DataFrame, chosen: dict[str, str], options: ImportOptions
) -> tuple[dict[str, pd.Series], list[str]]:
    """The label columns by name: one ``label``, or ``label_<class>`` for a multi-label table.

    Multi-label where ``options`` names label columns or a separator, or the labels contain ``|``.
    Raises :class:`DatasetRefused` for absent label columns and cells that are neither yes nor no.
    """
    if options.label_columns:
        _require_columns(raw, options.label_columns)
        return {LABEL_PREFIX + c: _yes_no(raw[c], c) for c in options.label_columns}, [
            "labels: multi-label from columns; 1 yes, 0 no, empty and -1 unknown"
        ]
    own = [c for c in raw.columns if c.startswith(LABEL_PREFIX)]
    if own and "label" not in chosen:
        return {c: _yes_no(raw[c], c) for c in own}, []
    if "label" not in chosen:
        return {}, ["labels: none found; name the column with --map label=COLUMN"]
    column = raw[chosen["label"]].astype("str").str.strip()
    column = column.mask(column == "").where(raw[chosen["label"]].notna())
    separator = options.label_separator
    if separator is None and bool(column.str.contains(_DEFAULT_SEPARATOR, regex=False).any()):
        separator = _DEFAULT_SEPARATOR
    if separator is None:
        return {"label": column}, []
    return _several(column, separator), [
        f"labels: multi-label, classes of one image separated by '{separator}' in "
        f"'{chosen['label']}'; a class that is not named is absent, an empty cell is unknown"
    ]


def _require_columns(raw: pd.DataFrame, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in raw.columns:
            raise DatasetRefused(
                expected(
                    f"a label column '{name}'",
                    f"the columns {', '.join(repr(c) for c in raw.columns)}",
                    _nearest(name, list(raw.columns)),
                )
            )


def _yes_no(column: pd.Series, name: str) -> pd.Series:
    import pandas as pd

    words = column.astype("str").str.strip().str.lower().where(column.notna(), "")
    value = words.map({**dict.fromkeys(_YES, 1.0), **dict.fromkeys(_NO, 0.0)})
    odd = value.isna() & ~words.isin(_UNCERTAIN | {"", "nan"})
    if bool(odd.any()):
        raise DatasetRefused(
            expected(
                f"1, 0, -1 or empty in label column '{name}'",
                f"{int(odd.sum())} other cells, e.g. '{words[odd].iloc[0][:40]}'",
                "choose another column, or one column of class names with --map label=COLUMN",
            )
        )
    return pd.Series(value, index=column.index, dtype="float64")


def _several(column: pd.Series, separator: str) -> dict[str, pd.Series]:
    parts = [
        {p.strip() for p in cell.split(separator) if p.strip()} if isinstance(cell, str) else None for cell in column
    ]
    names = sorted({p for some in parts if some for p in some})
    positive = [n for n in names if n.lower().replace(" ", "_") not in NEGATIVE_WORDS]
    return {LABEL_PREFIX + n: _membership(parts, n, column) for n in positive}


def _membership(parts: list[set[str] | None], name: str, like: pd.Series) -> pd.Series:
    import pandas as pd

    values = [None if some is None else float(name in some) for some in parts]
    return pd.Series(values, index=like.index, dtype="float64")


def _find_images(paths: pd.Series, beside: Path, asked: Path | None) -> tuple[Path, list[str], str]:
    """Root, paths below it, and where they were found: as written, else by name below the root."""
    import pandas as pd

    if bool(paths.isna().any()):
        raise DatasetRefused(
            expected(
                "a file name in every row",
                f"{int(paths.isna().sum())} rows without one",
                "fill them in or take the rows out",
            )
        )
    written = [str(p).strip().replace("\\", "/") for p in paths]
    roots = [asked] if asked else [beside, beside / "images", beside.parent]
    for root in roots:
        if all((root / p).is_file() for p in written):
            return root.resolve(), written, f"images: below {root}, as written"
    root = asked or beside
    found = _by_name(written, root)
    missing = [p for p, f in zip(written, found, strict=True) if f is None]
    if missing:
        raise DatasetRefused(
            expected(
                f"{len(pd.unique(paths))} image files below {root}",
                f"{len(missing)} that are not there, e.g. '{missing[0]}'",
                "name their folder with --images FOLDER",
            )
        )
    return root.resolve(), [f for f in found if f], f"images: found by name below {root}"


def _by_name(written: list[str], root: Path) -> list[str | None]:
    """Files by their name, with or without suffix; refuses a name that fits several files."""
    index: dict[str, list[str]] = defaultdict(list)
    for file in files_below(root):
        for key in {file.name, file.stem}:
            index[key].append(posix(file, root))
    found: list[str | None] = []
    for path in written:
        hits = index.get(path.rsplit("/", 1)[-1], [])
        if len(hits) > 1:
            raise DatasetRefused(
                expected(
                    f"one file for '{path}'",
                    f"{len(hits)}, e.g. {', '.join(hits[:2])}",
                    "write the path from the images folder",
                )
            )
        found.append(hits[0] if hits else None)
    return found


def _split_warning(raw: pd.DataFrame, chosen: dict[str, str], table: pd.DataFrame) -> list[str]:
    if "split" not in chosen:
        return []
    unknown = sorted({str(v) for v in raw[chosen["split"]][table["split"].isna()].dropna()})
    if not unknown:
        return []
    return [f"splits that are not train, val or test are left empty: {', '.join(unknown[:5])}"]


def _table_file(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix.lower() in _TABLES else None
    inside = [f for f in source.iterdir() if f.suffix.lower() in _TABLES] if source.is_dir() else []
    return inside[0] if len(inside) == 1 else None
