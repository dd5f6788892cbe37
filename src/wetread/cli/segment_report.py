"""The reports of segmenters: of a training run, and of an evaluation on annotated images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wetread import __version__

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.models.card import MetricRow, SegmenterCard
    from wetread.models.organs import Segmenter
    from wetread.reporting.facts import DataFacts, OverlapReport, SegmenterSummary
    from wetread.training.segment import SegmentResult
    from wetread.training.segment_data import MaskCounts

__all__ = [
    "images_sentence",
    "print_overlaps",
    "segmenter_summary",
    "worst_cases",
    "write_evaluation",
    "write_segment_report",
]

_WORST = 6
_PICTURE_PX = 384


def print_overlaps(metrics: Sequence[MetricRow]) -> None:
    """Print one line for each mean score with its interval."""
    from wetread.cli.console import stdout

    for row in metrics:
        value = row.estimate
        if value.value is None:
            text = f"not given ({value.note})"
        elif value.low is None or value.high is None:
            text = f"{value.value:.3f} (n={value.n}; {value.note})"
        else:
            text = f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f}, n={value.n})"
        stdout().print(f"{row.name} ({row.split}): {text}", style="bold", markup=False)


def images_sentence(images: MaskCounts) -> str:
    """Say how many images a run used, how many masks of each organ they have, and how many were left out."""
    masks = ", ".join(f"{count} of {organ}" for organ, count in images.masks.items())
    return f"{images.used} images with masks ({masks}); {images.without_mask} others of these splits left out"


def segmenter_summary(card: SegmenterCard) -> SegmenterSummary:
    """What the pages say about the segmenter, from its card alone."""
    from wetread.reporting.facts import SegmenterSummary

    return SegmenterSummary(
        name=card.name,
        version=card.version,
        sha256=card.sha256,
        organs=card.organs,
        population=card.data.population,
        limits=card.limits,
        audit_verdict=card.audit_verdict,
    )


def worst_cases(
    segmenters: Sequence[Segmenter], manifest: Manifest, scores: pd.DataFrame, count: int = _WORST
) -> tuple[tuple[str, bytes], ...]:
    """Return (caption, JPEG) of the images with the lowest Dice: annotated and found outlines on the film.

    ``scores`` may have a column ``network``: the number, from 1, of the network that judged the image.
    """
    from wetread.reading.organ_picture import organ_picture
    from wetread.training.segment_data import load_annotated

    table = manifest.table.set_index("path", drop=False)
    pictures = []
    judged = scores[scores["dice"].notna()]  # where both masks are empty there is nothing to see
    for _, score in judged.sort_values("dice").head(count).iterrows():
        organ = str(score["organ"])
        image, masks = load_annotated(manifest, table.loc[score["path"]], (organ,))
        number = int(score["network"]) - 1 if "network" in scores.columns else 0
        outlines = {"annotated": masks[organ], "found": segmenters[number].masks(image)[organ]}
        picture = organ_picture(image.pixels, {k: v for k, v in outlines.items() if v is not None}, _PICTURE_PX)
        target = io.BytesIO()
        picture.save(target, "JPEG", quality=85)
        pictures.append((f"{score['path']}, {organ}: Dice {score['dice']:.3f}", target.getvalue()))
    return tuple(pictures)


def write_segment_report(result: SegmentResult, manifest: Manifest) -> Path:
    """Write ``report.html``, ``plots/*.svg`` and ``metrics.csv`` into the run folder; return the page."""
    from wetread.cli.train_report import learning_curves, run_provenance
    from wetread.models.bundle import load_segmenter
    from wetread.models.organs import Segmenter
    from wetread.reporting.facts import MetricRow, NextStep, ReaderSummary, TrainingReport
    from wetread.reporting.html import render_training
    from wetread.training.run import RunFolder

    run, card, place = RunFolder(result.run_folder), result.card, result.reader_folder
    curves = learning_curves(run, "val_dice", "Dice")
    for number, svg in enumerate(curves.values(), 1):
        run.write_text(f"plots/{number:02d}.svg", svg)
    each = [Segmenter(card, [network]) for network in load_segmenter(place).networks]
    config = {k: ", ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in result.config.model_dump().items()}
    report = TrainingReport(
        title=f"Training run {card.name}",
        created=datetime.fromisoformat(card.created),
        run_folder=str(result.run_folder),
        reader=ReaderSummary(
            name=card.name,
            intended_use=card.intended_use,
            population=card.data.population,
            limits=card.limits,
            licence=card.licence,
        ),
        outcome=f"Segmenter {card.name} is trained; the figures are of images that its networks did not see.",
        config=config,
        data=_data(result),
        curves=curves,
        metrics=tuple(MetricRow(name=row.name, estimate=row.estimate) for row in card.metrics),
        provenance=run_provenance(result.run_folder),
        warnings=_left_out(result.images),
        next_steps=(
            NextStep(text="Measure it on images it has not seen.", command=f"wetread evaluate {place} --data DATASET"),
            NextStep(text="Find organs.", command=f"wetread segment IMAGES --segmenter {place}"),
        ),
        pictures=worst_cases(each, manifest, result.scores),
        audit_verdict=card.audit_verdict,
        wetread_version=__version__,
    )
    run.write_text("report.html", render_training(report))
    return run.path / "report.html"


def _left_out(images: MaskCounts) -> tuple[str, ...]:
    if not images.without_mask:
        return ()
    return (f"{images.without_mask} of {images.used + images.without_mask} images have no mask and were left out.",)


def _data(result: SegmentResult) -> DataFacts:
    from wetread.datasets.check_result import CountTable
    from wetread.reporting.facts import DataFacts

    card, folds, images = result.card, result.config.folds, result.images
    rows = [*images.masks.items(), ("no mask, left out", images.without_mask)]
    split = card.training.get("split") or {}
    return DataFacts(
        name=card.data.name,
        task="segmentation",
        classes=card.organs,
        n_images=card.data.images,
        n_patients=card.data.patients,
        counts=(
            CountTable(
                title="images with a mask, to train on or to judge by", columns=("organ", "images"), rows=tuple(rows)
            ),
        ),
        split_method=f"{folds} patient-grouped folds" if folds else str(split.get("method", "given by the data set")),
        split_seed=split.get("seed"),
        split_sha256=split.get("sha256"),
        manifest_sha256=card.data.sha256,
        licence=card.data.licence,
    )


def write_evaluation(out: Path, report: OverlapReport, scores: pd.DataFrame) -> None:
    """Write ``report.html``, ``results.json`` and ``scores.parquet`` into the new folder ``out``."""
    from wetread.provenance import atomic_folder
    from wetread.reporting.html import render_overlap

    with atomic_folder(out) as folder:
        (folder / "report.html").write_text(render_overlap(report), encoding="utf-8")
        text = report.model_dump_json(indent=2, exclude={"pictures"})
        (folder / "results.json").write_text(text + "\n", encoding="utf-8")
        scores.to_parquet(folder / "scores.parquet", index=False)
