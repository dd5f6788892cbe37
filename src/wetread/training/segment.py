"""``train --task segment``: from a manifest with masks to a run folder with a segmenter in it.

With folds each image is judged by the one network that did not see its patient.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from wetread import __version__
from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.errors import TrainingFailed, UsageError, expected
from wetread.models.bundle import round_weights, save_reader
from wetread.models.card import DataCard, InputSpec, SegmenterCard
from wetread.models.organs import SEEN_BY_ALL, Segmenter
from wetread.models.segmenters import DECODER, build_segmenter, load_pretrained
from wetread.provenance import file_sha256, record, rows_sha256
from wetread.runtime import prepare_torch, seed_everything
from wetread.training.augment import recipe_named
from wetread.training.config import SegmentConfig
from wetread.training.data import Progress
from wetread.training.parts import Parts, fold_pairs, split_pair, used_rows
from wetread.training.run import RunFolder, open_run, undone_if_refused
from wetread.training.segment_data import AnnotatedImages, MaskCounts, annotated_rows, count_masks, gather_masks
from wetread.training.segment_losses import segment_loss
from wetread.training.segment_scores import mean_overlaps, score_images

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SegmentResult", "train_segmenter"]


@dataclass(frozen=True)
class SegmentResult:
    """Where the run and its segmenter lie, the card, one row of scores per judged image, and seconds spent."""

    run_folder: Path
    reader_folder: Path
    card: SegmenterCard
    scores: pd.DataFrame
    seconds: dict[str, float]
    config: SegmentConfig
    images: MaskCounts


@dataclass(frozen=True)
class _Plan:
    config: SegmentConfig
    manifest: Manifest
    spec: InputSpec
    run: RunFolder
    resume: bool
    progress: Progress | None


def train_segmenter(
    manifest: Manifest, config: SegmentConfig, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> SegmentResult:
    """Train a segmenter into ``out`` (a new run folder); see :class:`SegmentConfig` for every setting.

    Raises:
        SplitRefused: no train or validation images with masks, or the split leaks.
        DatasetRefused: unreadable images or masks, or an organ without masks.
        UsageError: unknown network, encoder or loss.
        TrainingFailed: the loss diverged or the disk is full.
        Interrupted: stopped by the user, checkpoint saved.
    """
    started = time.perf_counter()
    assert_no_leak(manifest)
    run, config = open_run(out, config, resume=resume)
    with undone_if_refused(run, resume=resume):
        prepare_torch(config.threads)
        seed_everything(config.seed)
        size = config.image_size
        spec = InputSpec(height=size, width=size, fit=config.fit, standardise=config.standardise)
        plan = _Plan(config, manifest, spec, run, resume, progress)
        _refuse_what_cannot_work(plan)
        parts = _parts(plan)
        images = gather_masks(manifest, used_rows(parts), config.organs, spec, progress, exclusive=config.exclusive)
        decoded = time.perf_counter()
        networks = [_fit_one(plan, images, parts, number) for number in range(len(parts))]
        seconds = {
            "decoding": round(decoded - started, 2),
            "training": round(time.perf_counter() - decoded, 2),
        }
        return _finish(plan, networks, parts, seconds)


def _refuse_what_cannot_work(plan: _Plan) -> None:
    """Refuse now what would otherwise be found after minutes of decoding."""
    config, size = plan.config, plan.spec.height
    recipe_named(config.augment)
    if config.weights and config.network != "unet":
        raise UsageError(expected("weights for the encoder of a unet", config.network, "leave --weights out"))
    network = build_segmenter(config.network, len(config.organs), plan.spec, encoder=config.encoder).eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, plan.spec.channels, size, size))
    except (AssertionError, RuntimeError) as error:  # some encoders take images of one size only
        wanted = f"an encoder for images of {size}x{size}"
        raise UsageError(expected(wanted, config.encoder, "use a convolutional one, e.g. resnet34")) from error
    nothing = torch.zeros(1, 2, 8, 8)
    segment_loss(config.loss, nothing, nothing, softmax=False)


def _parts(plan: _Plan) -> Parts:
    """(train, validation) tables of annotated images, one pair per network."""
    table = annotated_rows(plan.manifest, plan.config.organs)
    if not plan.config.folds:
        return [split_pair(table, "images with masks")]
    # Masks have no classes to balance, and rare labels must not stand in the way.
    bare = plan.manifest.with_table(table.assign(label=None), task="binary", classes=())
    return fold_pairs(bare, plan.config.folds, plan.config.seed)


def _fit_one(plan: _Plan, images: AnnotatedImages, parts: Parts, number: int) -> tuple[nn.Module, str]:
    """Train the network of one part; return it with the origin of its first weights."""
    from wetread.training.loop import Loop, run_loop  # Lightning takes seconds to import
    from wetread.training.segment_module import SegmentModule, segment_loader

    config = plan.config
    network = build_segmenter(config.network, len(config.organs), plan.spec, encoder=config.encoder)
    origin = "random"
    if config.network == "unet":
        origin = load_pretrained(network, config.encoder, plan.spec, config.weights)
    place = {path: i for i, path in enumerate(images.table["path"])}
    train, judged = (images.take(np.array([place[path] for path in table["path"]])) for table in parts[number])
    one = len(parts) == 1
    loop = Loop(
        config,
        plan.run.path if one else plan.run.path / f"fold-{number + 1}",
        "val_dice",
        len(train),
        "training" if one else f"training fold {number + 1}/{len(parts)}",
    )
    recipe = recipe_named(config.augment, plan.manifest.meta.allowed_flips)
    module = SegmentModule(network.to(memory_format=torch.channels_last), plan.spec, config, recipe)
    loaders = (segment_loader(train, config.batch_size, config.seed), segment_loader(judged, config.batch_size))
    run_loop(module, loop, loaders, resume=plan.resume, progress=plan.progress)
    return round_weights(network.eval()), origin


def _finish(plan: _Plan, fitted: list[tuple[nn.Module, str]], parts: Parts, seconds: dict[str, float]) -> SegmentResult:
    """Judge what each network did not see, save the bundle and everything that the run folder holds."""
    import pandas as pd

    networks = [network for network, _ in fitted]
    card = _card(plan, fitted, parts, seconds)
    scores = pd.concat(
        score_images(Segmenter(card, [network]), plan.manifest, judged, plan.progress).assign(network=number + 1)
        for number, (network, (_, judged)) in enumerate(zip(networks, parts, strict=True))
    ).reset_index(drop=True)
    split = "validation" if len(parts) == 1 else "out-of-fold"
    card = card.model_copy(update={"metrics": mean_overlaps(scores, split, plan.config.seed)})
    card = save_reader(plan.run.reader, card, networks, held_out=_held_out(plan, parts), failure=TrainingFailed)
    plan.run.write_predictions(scores, "scores.parquet")
    images = count_masks(plan.manifest, used_rows(parts), plan.config.organs, folds=plan.config.folds)
    results = {"metrics": [row.model_dump() for row in card.metrics], "images": images.model_dump(), "seconds": seconds}
    plan.run.write_json("results.json", results)
    facts = record(seed=plan.config.seed, threads=plan.config.threads, hashes={"model.safetensors": card.sha256})
    plan.run.write_json("provenance.json", facts.model_dump(mode="json"))
    return SegmentResult(plan.run.path, plan.run.reader, card, scores, seconds, plan.config, images)


def _held_out(plan: _Plan, parts: Parts) -> dict[str, int]:
    """Which network did not learn each image; see :class:`~wetread.models.organs.Segmenter`."""
    learned = {path: SEEN_BY_ALL for table, _ in parts for path in table["path"]}
    judged = {path: number for number, (_, table) in enumerate(parts) for path in table["path"]}
    return {file_sha256(plan.manifest.path_of(path)): network for path, network in (learned | judged).items()}


def _card(plan: _Plan, fitted: list[tuple[nn.Module, str]], parts: Parts, seconds: dict[str, float]) -> SegmenterCard:
    config, meta = plan.config, plan.manifest.meta
    trained_on = used_rows(parts) if len(parts) > 1 else parts[0][0]
    network, origin = fitted[0]
    return SegmenterCard(
        kind="segmenter",
        name=config.run_name,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=config.network,
        encoder=config.encoder if config.network == "unet" else None,
        decoder=DECODER if config.network == "unet" else (),
        input=plan.spec,
        organs=config.organs,
        exclusive=config.exclusive,
        weights={},
        data=DataCard(
            name=meta.name,
            licence=meta.licence or "unknown",
            population=config.population,
            images=len(trained_on),
            patients=int(trained_on["patient"].fillna(trained_on["path"]).nunique()),
            sha256=rows_sha256(zip(trained_on["path"], trained_on["patient"], strict=True)),
        ),
        intended_use=config.intended_use,
        limits=config.limits,
        training={
            "settings": config.model_dump(mode="json"),
            "start": {"weights": origin},
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "split": meta.split.model_dump(mode="json") if meta.split else None,
            "seconds": seconds,
        },
    )
