"""Everything that can be found out about a manifest without a model, as one record.

Copies across splits, files that cannot be read or can be read in two ways, and a single class
block. What a person should look at warns.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wetread import __version__
from wetread.datasets.check_result import SEVERITIES, CheckResult, Example, Finding
from wetread.datasets.conflicts import FEW_PATIENTS, label_findings
from wetread.datasets.conformance_rows import conformance_findings, conformance_rows
from wetread.datasets.counts import count_tables
from wetread.datasets.duplicates import MAX_HAMMING, MIN_CORRELATION, Copies, Pair, find_copies
from wetread.datasets.manifest import Manifest
from wetread.datasets.quality import COLOUR_LIMIT, ISSUES, outliers
from wetread.datasets.scan import Progress, scan
from wetread.datasets.splits import assignment_sha256, leaks
from wetread.errors import DatasetRefused, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check", "check_scanned", "linked_paths", "require_clean"]

_SHOWN = 5
_OUTLIER_SHARE = 0.02
"""cleanvision's limits are made for photographs. Where more images than this fall below one, it
describes the set (4.5 % of Kermany's smooth 224 px radiographs count as blurred)."""
_SPLIT_AGAIN = "divide anew: wetread dataset split DATASET --reset"


def check(manifest: Manifest, progress: Progress | None = None, *, workers: int = 0) -> CheckResult:
    """Decode every image once and return what was found.

    Raises :class:`DatasetRefused` where files of the manifest do not exist.
    """
    manifest.require_files()
    start = time.perf_counter()
    scanned = scan(manifest, progress, workers=workers)
    return check_scanned(manifest, scanned, read_s=time.perf_counter() - start)


def check_scanned(manifest: Manifest, scanned: pd.DataFrame, *, read_s: float = 0.0) -> CheckResult:
    """Like :func:`check`, from a scan whose rows are those of the manifest and that took ``read_s``."""
    seconds = {"read images": round(read_s, 3)}
    start = time.perf_counter()
    copies = find_copies(scanned)
    seconds["find copies"] = round(time.perf_counter() - start, 3)
    start = time.perf_counter()
    odd = outliers(scanned)
    seconds["find outliers"] = round(time.perf_counter() - start, 3)
    findings = [
        *conformance_findings(scanned),
        *_leak_findings(manifest),
        *_copy_findings(manifest, copies),
        *label_findings(manifest, copies),
        *_quality_findings(scanned, odd),
        *_notes(manifest),
    ]
    table = manifest.table
    return CheckResult(
        dataset=manifest.meta.name,
        task=manifest.meta.task,
        classes=manifest.meta.classes,
        n_images=len(table),
        n_patients=_number(table["patient"]),
        n_studies=_number(table["study"]),
        counts=count_tables(manifest),
        findings=tuple(sorted(map(_singular, findings), key=lambda f: SEVERITIES.index(f.severity))),
        conformance=conformance_rows(scanned),
        thresholds=_thresholds(),
        seconds=seconds,
        wetread_version=__version__,
    )


def linked_paths(manifest: Manifest, scanned: pd.DataFrame) -> list[tuple[str, ...]]:
    """Paths of images that are copies of each other; a split must not divide them."""
    copies = find_copies(scanned)
    paths = list(scanned["path"])
    groups = [tuple(paths[i] for i in group) for group in copies.exact]
    return groups + [(paths[p.first], paths[p.second]) for p in (*copies.near, *copies.mirrored)]


def require_clean(result: CheckResult) -> None:
    """Raise :class:`DatasetRefused`, in one line, where a finding blocks."""
    if result.blocking:
        said = "; ".join(f"{f.title}: {f.count} {f.unit}" for f in result.blocking)
        raise DatasetRefused(expected("a dataset without blocking findings", said, result.blocking[0].cure))


_SINGULAR = {"studies": "study", "classes": "class"}


def _singular(finding: Finding) -> Finding:
    """*1 study*, not *1 studies*."""
    if finding.count != 1:
        return finding
    return finding.model_copy(update={"unit": _SINGULAR.get(finding.unit, finding.unit.removesuffix("s"))})


def _number(column: pd.Series) -> int | None:
    return int(column.nunique()) if column.notna().any() else None


def _thresholds() -> dict[str, float]:
    return {
        "near duplicate: pHash bits that may differ": MAX_HAMMING,
        "near duplicate: least correlation of 32x32 thumbnails": MIN_CORRELATION,
        "coloured: share of coloured pixels above": COLOUR_LIMIT,
        "few patients of a class: below": FEW_PATIENTS,
    }


def _leak_findings(manifest: Manifest) -> list[Finding]:
    table = manifest.table
    names = {"patient": "patients", "study": "studies", "sha256": "files"}
    found = []
    for column, values in leaks(table).items():
        if column == "sha256":
            continue  # told with the copies, which have the examples
        examples = [tuple(table["path"][table[column] == v])[:_SHOWN] for v in values[:_SHOWN]]
        found.append(
            Finding(
                code=f"{names[column]}-across-splits",
                severity="block",
                title=f"{names[column].capitalize()} in more than one split",
                count=len(values),
                unit=names[column],
                cure=_SPLIT_AGAIN,
                examples=tuple(Example(paths=e) for e in examples),
            )
        )
    stored = manifest.meta.split
    if stored is not None and stored.sha256 != assignment_sha256(table):
        found.append(
            Finding(
                code="split-changed",
                severity="block",
                title="The split is not the one that dataset.toml recorded",
                count=1,
                unit="splits",
                cure="find out who changed it, or " + _SPLIT_AGAIN,
            )
        )
    return found


def _copy_findings(manifest: Manifest, copies: Copies) -> list[Finding]:
    """Copies across splits block; copies within one split, or of two patients, warn."""
    exact = [(group, "same pixels") for group in copies.exact]
    near = [((p.first, p.second), _measured(p)) for p in copies.near]
    mirrored = [((p.first, p.second), _measured(p)) for p in copies.mirrored]
    found = []
    for code, name, groups in (
        ("exact-duplicates", "Identical images", exact),
        ("near-duplicates", "Nearly identical images", near),
        ("mirrored-copies", "Mirrored copies", mirrored),
    ):
        across = [g for g in groups if _differ(manifest, "split", g[0])]
        within = [g for g in groups if not _differ(manifest, "split", g[0])]
        patients = [g for g in within if _differ(manifest, "patient", g[0])]
        same = [g for g in within if not _differ(manifest, "patient", g[0])]
        for groups_of_kind, suffix, severity, where, cure in (
            (across, "-across-splits", "block", " in different splits", _SPLIT_AGAIN),
            (patients, "-of-two-patients", "warn", " under different patients",
             "find out whose image it is; a split keeps them together"),
            (same, "", "info", " of one patient, or with no patient known",
             "keep one of each; they count several times in training and in figures"),
        ):  # fmt: skip
            if groups_of_kind:
                found.append(
                    Finding.model_validate(
                        {
                            "code": code + suffix,
                            "severity": severity,
                            "title": name + where,
                            "count": len(groups_of_kind),
                            "unit": "groups",
                            "cure": cure,
                            "examples": _group_examples(manifest, groups_of_kind),
                        }
                    )
                )
    return found


def _measured(pair: Pair) -> str:
    return f"pHash distance {pair.distance}, correlation {pair.correlation:.3f}"


def _differ(manifest: Manifest, column: str, rows: tuple[int, ...]) -> bool:
    return int(manifest.table[column].iloc[list(rows)].nunique()) > 1


def _group_examples(manifest: Manifest, groups: list[tuple[tuple[int, ...], str]]) -> list[Example]:
    paths = manifest.table["path"]
    return [Example(paths=tuple(paths.iloc[list(rows[:_SHOWN])]), detail=detail) for rows, detail in groups[:_SHOWN]]


def _quality_findings(scanned: pd.DataFrame, odd: dict[str, list[tuple[int, str]]]) -> list[Finding]:
    return [_quality_finding(scanned["path"], issue, rows) for issue, rows in odd.items()]


def _quality_finding(paths: pd.Series, issue: str, rows: list[tuple[int, str]]) -> Finding:
    outliers_only = len(rows) <= max(1.0, _OUTLIER_SHARE * len(paths))
    cure = "look at them, the worst first; take out what is no diagnostic image"
    if not outliers_only:
        cure = "look at the worst; so many are a property of the set and no outliers"
    return Finding(
        code=f"quality-{issue.replace('_', '-')}",
        severity="warn" if outliers_only or issue == "coloured" else "info",
        title=f"Images that are {ISSUES[issue]}",
        count=len(rows),
        unit="images",
        cure=cure,
        examples=tuple(Example(paths=(paths.iloc[row],), detail=detail) for row, detail in rows[:_SHOWN]),
    )


def _notes(manifest: Manifest) -> list[Finding]:
    found = [
        Finding(
            code="import-note",
            severity="warn",
            title=note,
            count=1,
            unit="notes",
            cure="settle it with whoever made the data, or state it beside every figure",
        )
        for note in manifest.meta.warnings
    ]
    if manifest.table["patient"].isna().any():
        n = int(manifest.table["patient"].isna().sum())
        found.append(
            Finding(
                code="patient-unknown",
                severity="warn",
                title="Images without a patient",
                count=n,
                unit="images",
                cure="name the patients (--map patient=COLUMN or --patient-pattern); "
                "until then figures may be too good",
            )
        )
    return found
