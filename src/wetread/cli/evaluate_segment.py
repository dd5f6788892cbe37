"""``wetread evaluate --task segment``: how a segmenter's masks lie on annotated ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wetread import __version__
from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from wetread.datasets.manifest import Manifest
    from wetread.models.card import MetricRow as CardMetric
    from wetread.models.organs import Segmenter
    from wetread.reporting.facts import OverlapReport

__all__ = ["evaluate_segmenter", "is_segmenter", "odd"]


def is_segmenter(target: str, shelves: list[Path]) -> bool:
    """Whether ``target`` names a segmenter; False where it names no bundle at all."""
    from wetread.errors import BundleRefused
    from wetread.models.bundle import find_reader, load_any_card
    from wetread.models.card import SegmenterCard

    try:
        return isinstance(load_any_card(find_reader(target, shelves)), SegmenterCard)
    except BundleRefused:
        return False


def evaluate_segmenter(
    target: str, data: Path | None, split: str | None, out: Path | None, seed: int, *, as_json: bool
) -> None:
    """Segment the annotated images of one split (all images where there is none) and print the scores.

    Raises:
        UsageError: no data set, or no such segmenter.
        DatasetRefused: no image of the split has a mask, or the split leaks.
    """
    from wetread.cli.console import print_json, staged_progress, stdout
    from wetread.cli.segment_report import print_overlaps, worst_cases, write_evaluation
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.splits import assert_no_leak
    from wetread.models.bundle import load_segmenter
    from wetread.settings import load_settings
    from wetread.training.segment_scores import mean_overlaps, score_images

    if data is None:
        raise UsageError(expected("a data set with masks", "none", "add --data DATASET"))
    manifest, segmenter = load_manifest(data), load_segmenter(target, [load_settings().paths.readers])
    assert_no_leak(manifest)
    table, part = _part(manifest, split)
    with staged_progress() as advance:
        scores = score_images(segmenter, manifest, table, advance, look=odd)
    metrics = mean_overlaps(scores, part, seed)
    report = _report(segmenter, manifest, scores, part, metrics)
    report = report.model_copy(update={"n_without_mask": len(table) - report.n_images})
    if out is not None:
        pictures = worst_cases([segmenter], manifest, scores)
        write_evaluation(out, report.model_copy(update={"pictures": pictures}), scores)
    if as_json:
        return print_json(report.model_dump(mode="json", exclude={"pictures"}))
    print_overlaps(metrics)
    stdout().print(f"{report.n_flagged} of {len(scores)} masks are odd; they are counted", markup=False)
    stdout().print(f"{report.n_images} images with masks; {report.n_without_mask} without any left out", markup=False)
    if out is not None:
        stdout().print(f"Report: {out / 'report.html'}", markup=False)
    return None


def _part(manifest: Manifest, split: str | None) -> tuple[pd.DataFrame, str]:
    table = manifest.table
    if split is None and not (table["split"] == "test").any():
        return table, "all images"
    wanted = split or "test"
    part = table[table["split"] == wanted]
    if not len(part):
        raise DatasetRefused(expected(f"images in the split {wanted!r}", "none", "name another with --split"))
    return part, wanted


def odd(organ: str, mask: NDArray[np.bool_]) -> tuple[str, ...]:
    """What is odd about a found mask, except that it touches the border, as true masks do."""
    from wetread.reading.mask_quality import oddities, quality_flags
    from wetread.reading.measures import ORGANS

    if organ not in ORGANS:
        return () if mask.any() else ("empty",)
    return oddities(quality_flags(organ, mask))


def _report(
    segmenter: Segmenter, manifest: Manifest, scores: pd.DataFrame, split: str, metrics: Sequence[CardMetric]
) -> OverlapReport:
    from wetread.cli.segment_report import segmenter_summary
    from wetread.reporting.facts import MetricRow, OverlapReport
    from wetread.training.segment_scores import patients_of

    return OverlapReport(
        title=f"{segmenter.card.name} on {manifest.meta.name}",
        created=datetime.now(UTC).replace(microsecond=0),
        segmenter=segmenter_summary(segmenter.card),
        dataset=manifest.meta.name,
        split=split,
        n_images=int(scores["path"].nunique()),
        n_patients=len(set(patients_of(scores))),
        n_flagged=int((scores["flags"] != "").sum()),
        metrics=tuple(MetricRow(name=row.name, estimate=row.estimate) for row in metrics),
        wetread_version=__version__,
    )
