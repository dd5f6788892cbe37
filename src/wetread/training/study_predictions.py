"""What a reader of studies says of a manifest: one row for each study, and one for each of its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.manifest import Manifest
from wetread.datasets.splits import assert_no_leak
from wetread.errors import SplitRefused, expected
from wetread.models.mil import StudyReader
from wetread.training.data import Progress, labels_of
from wetread.training.finish import Judged, prediction_table
from wetread.training.predictions import refuse_other_labels
from wetread.training.study_data import Bags, bags_of
from wetread.training.study_features import embed_images

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StudyPredictions", "predict_studies"]


@dataclass(frozen=True)
class StudyPredictions:
    """Predictions for B studies of M images.

    ``studies``: as ``evaluate`` reads it, with ``image`` the name of the study and ``images`` how many it has.
    ``views``: one row for each image: ``image``, ``study``, ``patient``, ``weight_<label>`` (adding up to 1 over the
    study), ``probability_<label>`` of the image alone by the reader's own calibration, and the study's targets.
    """

    studies: pd.DataFrame
    views: pd.DataFrame


def predict_studies(
    reader: StudyReader,
    manifest: Manifest,
    split: str | None = "test",
    *,
    held: int = 16,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> StudyPredictions:
    """Judge the studies of ``split`` (None: all), ``held`` images in memory at once.

    Raises:
        SplitRefused: the split leaks, or has no images.
        DatasetRefused: no studies, contradicting labels, an unreadable image, or other classes than the reader's.
    """
    assert_no_leak(manifest)
    refuse_other_labels(reader.reader, manifest)
    table = manifest.table if split is None else manifest.table[manifest.table["split"] == split]
    if not len(table):
        raise SplitRefused(expected(f"images in the split {split!r}", "none", "name another --split"))
    table = table.reset_index(drop=True)
    bags = bags_of(table, manifest.meta, reader.spec.level, reader.spec.label_policy)
    used = reader.networks[:1] if reader.spec.one_encoder else reader.networks
    vectors = embed_images(used, manifest, table, reader.reader.input, held=held, cache=cache, progress=progress)
    judged = [reader.judge(vectors[rows], table["view"].iloc[rows].tolist()) for rows in bags.rows]
    logits = np.stack([one.logits for one in judged])
    studies = prediction_table(
        reader.card, manifest, Judged(bags.table, logits, bags.targets, bags.patients), split
    ).assign(images=bags.table["images"].to_numpy())
    weights = np.concatenate([one.weights for one in judged])
    alone = reader.probabilities(np.concatenate([one.views for one in judged]))
    return StudyPredictions(studies, _views(table, bags, studies, (weights, alone), labels_of(manifest.meta)))


def _views(
    table: pd.DataFrame,
    bags: Bags,
    studies: pd.DataFrame,
    found: tuple[NDArray[np.float32], NDArray[np.float64]],
    labels: tuple[str, ...],
) -> pd.DataFrame:
    import pandas as pd

    weights, alone = found
    rows, number = np.concatenate(bags.rows), np.repeat(np.arange(len(bags)), bags.lengths)
    columns = {"image": table["path"].to_numpy()[rows]}
    targets = [name for name in studies.columns if name == "target" or name.startswith("target_")]
    kept = [name for name in ("patient", "study", "split", "body_part", *targets) if name in studies.columns]
    columns |= {name: studies[name].to_numpy()[number] for name in kept}
    columns |= {f"weight_{label}": weights[:, k] for k, label in enumerate(labels)}
    columns |= {f"probability_{label}": alone[:, k] for k, label in enumerate(labels)}
    return pd.DataFrame(columns)
