"""The columns of a manifest: names, types, and the words that other people use for them.

One row is one image. A value that nobody knows is null, never 0 and never an invented default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wetread.errors import DatasetRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "LABEL_PREFIX",
    "NEGATIVE_WORDS",
    "SPLITS",
    "SYNONYMS",
    "Kind",
    "conform",
    "guess_negative",
    "label_columns",
    "read_table",
]

Kind = Literal["text", "number", "count"]
LABEL_PREFIX = "label_"
"""Multi-label manifests have one ``label_<class>`` column per class: 1, 0 or null."""
SPLITS = ("train", "val", "test")

COLUMNS: dict[str, Kind] = {
    "path": "text",
    "patient": "text",
    "study": "text",
    "series": "text",
    "label": "text",
    "split": "text",
    "source": "text",
    "view": "text",
    "body_part": "text",
    "laterality": "text",
    "sex": "text",
    "age": "number",
    "mask": "text",
    "boxes": "text",
    "text": "text",
    "sha256": "text",
    "phash": "text",
    "width": "count",
    "height": "count",
    "bits": "count",
    "spacing_mm": "text",
    "licence": "text",
}
"""Known columns in their order. ``spacing_mm`` is ``row,column``; ``age`` is in years;
``sha256`` is of the file's bytes; ``phash`` is 64 bits in hexadecimal; ``boxes`` is JSON.
Any other column may be added and is kept: it can name subgroups."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "path": (
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "imagepath",
        "image_index",
        "img",
        "image_id",
        "dicom_path",
    ),
    "patient": (
        "patientid",
        "patient_id",
        "subject",
        "subject_id",
        "subjectid",
        "pid",
        "case",
        "case_id",
    ),
    "study": (
        "studyid",
        "study_id",
        "study_uid",
        "studyuid",
        "studyinstanceuid",
        "study_instance_uid",
        "accession",
    ),
    "series": (
        "series_id",
        "seriesid",
        "series_uid",
        "seriesinstanceuid",
        "series_instance_uid",
    ),
    "label": (
        "labels",
        "class",
        "classes",
        "diagnosis",
        "finding",
        "findings",
        "finding_labels",
        "target",
        "category",
        "disease",
    ),
    "split": ("fold_name", "subset", "partition", "set", "dataset_split"),
    "source": ("site", "hospital", "institution", "centre", "center", "location"),
    "view": ("view_position", "viewposition", "projection", "ap/pa", "ap_pa"),
    "body_part": ("bodypart", "body_part_examined", "bodypartexamined", "region"),
    "laterality": ("side", "image_laterality"),
    "sex": ("gender", "patient_sex", "patient_gender", "patientsex"),
    "age": ("patient_age", "patientage", "age_years"),
    "mask": ("mask_path", "segmentation", "lung_mask"),
    "text": ("report", "clinical_notes", "report_text", "impression"),
    "licence": ("license",),
}
"""Names that other tables give to a column, in lower case with spaces as underscores."""

NEGATIVE_WORDS = frozenset(
    {
        "0",
        "absent",
        "benign",
        "control",
        "controls",
        "false",
        "healthy",
        "neg",
        "negative",
        "no",
        "no_finding",
        "no_findings",
        "none",
        "normal",
    }
)
"""Class names that mean that nothing was found, in lower case with spaces as underscores."""


def read_table(path: object, kinds: dict[str, Kind] | None = None) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file without guessing types: in a CSV every column stays text.

    Only an empty cell is null; ``None`` or ``NA`` may be the name of a class. Raises
    :class:`DatasetRefused` where the file is not such a table.
    """
    from pathlib import Path

    import pandas as pd

    file = Path(str(path))
    try:
        if file.suffix.lower() == ".parquet":
            return pd.read_parquet(file)
        separator = "\t" if file.suffix.lower() in {".tsv", ".tab"} else ","
        return pd.read_csv(
            file,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            encoding_errors="replace",
        )
    except FileNotFoundError:
        raise DatasetRefused(expected("a table", f"no file at {file}", "check the path")) from None
    except (ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else "empty file"
        raise DatasetRefused(
            expected(
                f"a CSV, TSV or Parquet table in {file.name}",
                first,
                "open it and check that it has a header line and one row per image",
            )
        ) from error


def label_columns(table: pd.DataFrame) -> list[str]:
    """The multi-label columns ``label_<class>`` in their order."""
    return [c for c in table.columns if str(c).startswith(LABEL_PREFIX)]


def conform(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with every known column in the order and type of :data:`COLUMNS`.

    Text cells are stripped and empty ones become null. Extra columns follow, unchanged. Raises
    :class:`DatasetRefused` for a cell that should be a number and is not.
    """
    import pandas as pd

    done = {name: _typed(table, name, kind) for name, kind in COLUMNS.items()}
    for name in label_columns(table):
        done[name] = _numbers(table[name], name)
    extra = [c for c in table.columns if c not in done]
    done.update({str(c): table[c] for c in extra})
    return pd.DataFrame(done, index=table.index).reset_index(drop=True)


def _typed(table: pd.DataFrame, name: str, kind: Kind) -> pd.Series:
    import pandas as pd

    if name not in table.columns:
        empty: pd.Series = pd.Series(None, index=table.index, dtype="str")
        return empty if kind == "text" else _numbers(empty, name, kind)
    if kind != "text":
        return _numbers(table[name], name, kind)
    column = table[name]
    text = column.where(column.isna(), column.astype("str")).astype("str").str.strip()
    return text.mask(text == "")


def _numbers(column: pd.Series, name: str, kind: Kind = "number") -> pd.Series:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers.isna() & column.notna() & (column.astype("str").str.strip() != "")]
    if len(wrong):
        raise DatasetRefused(
            expected(
                f"numbers in column '{name}'",
                f"{len(wrong)} cells that are not numbers, the first in row {wrong.index[0]}",
                "leave unknown cells empty or map another column",
            )
        )
    return numbers.astype("Int64" if kind == "count" else "float64")


def guess_negative(classes: list[str]) -> str | None:
    """The one class whose name means that nothing was found, else None.

    Of two classes it is also the one that denies the other, as in ``CT_COVID`` and ``CT_NonCOVID``.
    """
    hits = [c for c in classes if _word(c) in NEGATIVE_WORDS]
    if not hits and len(classes) == 2:
        hits = [c for c, other in (classes, classes[::-1]) if _denies(_word(c), _word(other))]
    return hits[0] if len(hits) == 1 else None


def _denies(name: str, other: str) -> bool:
    plain = other.replace("_", "")
    return any(name.replace("_", "").replace(word, "", 1) == plain for word in ("non", "not", "no") if word in name)


def _word(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
