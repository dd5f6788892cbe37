"""A manifest whose split leaks stops the evaluation; a clean one is named in the result."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.evaluation.tables import binary_table, spec_of
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import SplitRefused
from wetread.evaluation.protocol import evaluate


def manifest_of(patients: list[str], tmp_path: Path) -> Manifest:
    table = pd.DataFrame(
        {
            "path": [f"{k}.png" for k in range(4)],
            "patient": patients,
            "label": ["normal", "pneumonia"] * 2,
            "split": ["train", "train", "test", "test"],
        }
    )
    meta = DatasetMeta(name="toy", task="binary", classes=("normal", "pneumonia"))
    return Manifest(table, meta, tmp_path)


def test_leaking_manifest_is_refused(tmp_path: Path) -> None:
    table = binary_table(100)
    with pytest.raises(SplitRefused, match="1 patients in more than one"):
        evaluate(table, spec_of(table), manifest=manifest_of(["a", "b", "b", "c"], tmp_path))


def test_clean_manifest_is_named(tmp_path: Path) -> None:
    table = binary_table(100)
    spec = spec_of(table, leak_checked="the reader was trained on another set")
    result = evaluate(table, spec, manifest=manifest_of(["a", "b", "c", "d"], tmp_path))
    assert result.facts.leak.startswith("no patient, study or image of toy is in two splits; the reader was")
    assert not any("not checked" in warning for warning in result.warnings)
