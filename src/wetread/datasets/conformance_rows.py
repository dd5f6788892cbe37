"""Which kinds of files a dataset has, and what reading them does to their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from wetread.datasets.check_result import ConformanceRow, Example, Finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AMBIGUOUS", "conformance_findings", "conformance_rows"]

AMBIGUOUS = "ambiguous: "
"""How imaging marks a contradiction that another reader might settle in another way."""
_STATUSES: tuple[Literal["refused", "ambiguous", "ok"], ...] = ("refused", "ambiguous", "ok")
_KIND = ["status", "format", "bits", "photometric_interpretation", "transfer_syntax", "applied"]
_MOST_REMARKS = 5
_SHOWN = 5


def conformance_rows(scanned: pd.DataFrame) -> tuple[ConformanceRow, ...]:
    """One row for each kind of file, what needs attention first, then the most frequent."""
    kinds = scanned.assign(status=_status(scanned))
    kinds["format"] = kinds["format"].fillna("not read")
    rows = [_row(kind) for _, kind in kinds.groupby(_KIND, dropna=False, sort=False)]
    return tuple(sorted(rows, key=lambda r: (_STATUSES.index(r.status), -r.count)))


def conformance_findings(scanned: pd.DataFrame) -> list[Finding]:
    """Files that cannot be read, or can be read in two ways, block."""
    status = _status(scanned)
    refused, ambiguous = scanned[status == "refused"], scanned[status == "ambiguous"]
    found = []
    if len(refused):
        found.append(
            Finding(
                code="unreadable",
                severity="block",
                title="Images that cannot be read",
                count=len(refused),
                unit="images",
                cure="repair them or take their rows out of the manifest",
                examples=_examples(refused["path"], refused["error"]),
            )
        )
    if len(ambiguous):
        remarks = [" | ".join(_ambiguities(w)) for w in ambiguous["warnings"]]
        found.append(
            Finding(
                code="ambiguous-pixels",
                severity="block",
                title="Images that can be read in two ways",
                count=len(ambiguous),
                unit="images",
                cure="mend the headers, or take the rows out of the manifest",
                examples=_examples(ambiguous["path"], remarks),
            )
        )
    return found


def _status(scanned: pd.DataFrame) -> pd.Series:
    warned = scanned["warnings"].fillna("").astype("str")
    ambiguous = warned.str.contains(AMBIGUOUS, regex=False)
    status = ambiguous.map({True: "ambiguous", False: "ok"})
    return status.mask(scanned["error"].notna(), "refused")


def _row(kind: pd.DataFrame) -> ConformanceRow:
    first = kind.iloc[0]
    texts = kind["error"] if first["status"] == "refused" else kind["warnings"]
    remarks = {part: None for text in texts.dropna() for part in str(text).split(" | ") if part}
    return ConformanceRow(
        status=first["status"],
        format=first["format"],
        bits=None if first["status"] == "refused" else int(first["bits"]),
        photometric_interpretation=_known(first["photometric_interpretation"]),
        transfer_syntax=_known(first["transfer_syntax"]),
        count=len(kind),
        example=first["path"],
        applied=tuple(s for s in (_known(first["applied"]) or "").split(" > ") if s),
        remarks=tuple(remarks)[:_MOST_REMARKS],
    )


def _known(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _ambiguities(warnings: str) -> list[str]:
    return [w.removeprefix(AMBIGUOUS) for w in warnings.split(" | ") if w.startswith(AMBIGUOUS)]


def _examples(paths: pd.Series, details: object) -> tuple[Example, ...]:
    pairs = list(zip(paths, details, strict=True))[:_SHOWN]  # type: ignore[call-overload]
    return tuple(Example(paths=(path,), detail=detail) for path, detail in pairs)
