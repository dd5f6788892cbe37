"""Predictions tables for the tests, drawn from a reader of known quality."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wetread.evaluation.result import EvaluationSpec

__all__ = ["binary_table", "multiclass_table", "multilabel_table", "spec_of"]


def binary_table(n: int = 300, seed: int = 0, noise: float = 0.0) -> pd.DataFrame:
    """Two images per patient, one study each; ``noise`` makes the reader worse, the truth stays."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0.3, 2.0, n)
    positive = generator.random(n) < 1 / (1 + np.exp(-logits))
    worse = logits + noise * np.random.default_rng(seed + 1000).normal(size=n)
    number = np.arange(n) // 2
    return pd.DataFrame(
        {
            "image": [f"images/{k:04d}.png" for k in range(n)],
            "patient": [f"p{k}" for k in number],
            "study": [f"s{k}" for k in number],
            "split": "test",
            "probability_pneumonia": 1 / (1 + np.exp(-worse)),
            "target": np.where(positive, "pneumonia", "normal"),
            "sex": np.where(number % 2 == 0, "F", "M"),
            "view": np.where(number % 15 == 0, "PA", "AP"),
            "age": 1.0 + number % 5 + generator.random(n),
        }
    )


def multiclass_table(n: int = 300, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    names = np.array(["normal", "bacterial", "viral"])
    p = generator.dirichlet([0.7, 0.7, 0.7], n)
    truth = (p.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    columns = {f"probability_{name}": p[:, k] for k, name in enumerate(names)}
    return pd.DataFrame({"image": [f"{k}.png" for k in range(n)], **columns, "target": names[truth]})


def multilabel_table(n: int = 300, seed: int = 0) -> pd.DataFrame:
    """A quarter of the truth of each label is unknown."""
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({"image": [f"{k}.png" for k in range(n)], "patient": [f"p{k}" for k in range(n)]})
    for label in ("effusion", "nodule"):
        p = generator.beta(0.6, 0.9, n)
        truth = (generator.random(n) < p).astype(np.float64)
        truth[generator.random(n) < 0.25] = np.nan
        table["probability_" + label], table["target_" + label] = p, truth
    return table


def spec_of(table: pd.DataFrame, **changes: object) -> EvaluationSpec:
    """The spec that the columns imply, with few resamples; ``changes`` override."""
    from wetread.evaluation.table import infer_classes

    task, classes = infer_classes(table)
    return EvaluationSpec.model_validate({"task": task, "classes": classes, "resamples": 200, **changes})
