"""What every run leaves behind once its networks are fitted: the bundle, predictions, figures and provenance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.manifest import Manifest
from wetread.errors import TrainingFailed
from wetread.models.backbones import embedding_width
from wetread.models.bundle import save_reader
from wetread.models.card import ReaderCard
from wetread.models.networks import Network
from wetread.models.outlier import FeatureStatistics
from wetread.provenance import record
from wetread.training.config import LoopSettings
from wetread.training.finish import Judged, prediction_table
from wetread.training.run import RunFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Outcome", "TrainingResult", "conclude", "history_of"]


@dataclass(frozen=True)
class TrainingResult:
    """Where the run and its reader lie, the reader's card, and seconds spent on each part."""

    run_folder: Path
    reader_folder: Path
    card: ReaderCard
    predictions: pd.DataFrame
    seconds: dict[str, float]
    config: LoopSettings


@dataclass(frozen=True)
class Outcome:
    """Fitted networks with their card, what was judged by them, and the gate's statistics if any.

    ``folded``: every case was judged by the one network that had not seen it; else they are the validation split.
    """

    card: ReaderCard
    networks: Sequence[Network]
    statistics: FeatureStatistics | None
    judged: Judged
    folded: bool
    seconds: dict[str, float]


def history_of(
    config: LoopSettings, manifest: Manifest, network: Network, seconds: dict[str, float], **more: object
) -> dict[str, object]:
    """What the card says of how a reader was trained; ``network``: the first one."""
    split = manifest.meta.split
    return {
        "settings": config.model_dump(mode="json"),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "embedding": embedding_width(network.encoder),
        "split": split.model_dump(mode="json") if split else None,
        **more,
        "seconds": seconds,
    }


def conclude(run: RunFolder, config: LoopSettings, manifest: Manifest, outcome: Outcome) -> TrainingResult:
    """Save the bundle and everything that the run folder holds.

    Raises:
        TrainingFailed: the disk is full.
    """
    networks, seconds = list(outcome.networks), outcome.seconds
    card = save_reader(run.reader, outcome.card, networks, outcome.statistics, failure=TrainingFailed)
    predictions = prediction_table(card, manifest, outcome.judged, "out-of-fold" if outcome.folded else "val")
    run.write_predictions(predictions)
    run.write_json("results.json", {"metrics": [row.model_dump() for row in card.metrics], "seconds": seconds})
    facts = record(seed=config.seed, threads=config.threads, hashes={"model.safetensors": card.sha256})
    run.write_json("provenance.json", facts.model_dump(mode="json"))
    return TrainingResult(run.path, run.reader, card, predictions, seconds, config)
