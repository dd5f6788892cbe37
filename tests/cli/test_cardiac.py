"""From masks and labels to a page with ratio, classifier and agreement: on phantoms, reader and read by their verbs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from tests.reporting.markup import Page
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantoms import DatasetPlan, Finding, PhantomSpec, make_dataset, render, write_dicom
from wetread.training.config import SegmentConfig
from wetread.training.segment import train_segmenter
from wetread.types import Read

Cli = Callable[..., CliResult]
FRACTIONS = {"train": 0.7, "val": 0.3}


def films(folder: Path, count: int, seed: int) -> Manifest:
    plan = DatasetPlan(
        count, seed=seed, kinds=("cardiomegaly",), sources=("northgate",), size_px=64, fractions=FRACTIONS
    )
    return make_dataset(folder, plan)


def test_heart_masks_to_agreement(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segmenter = tmp_path / "organs"
    settings = SegmentConfig(
        organs=("lungs", "heart"),
        image_size=32,
        epochs=3,
        batch_size=4,
        learning_rate=4e-3,
        augment="none",
        averaging=0,
        threads=1,
        tensorboard=False,
    )
    train_segmenter(films(tmp_path / "annotated", 30, 1), settings, segmenter)
    labelled = films(tmp_path / "labelled", 24, 2).root
    guide = ("--guide", "mask", "--organ", "heart", "--segmenter", segmenter, "--name", "heart", "--no-gate")
    small = ("--mode", "finetune", "--model", "cnn", "--image-size", "32", "--epochs", "1", "--batch-size", "16")
    made = cli("train", labelled, *guide, *small, "--threads", "1", "--no-tensorboard")
    assert made.exit_code == 0, made.stderr
    spec = PhantomSpec(seed=77, findings=(Finding("cardiomegaly", 0.9),), size_px=64)
    film = write_dicom(render(spec), tmp_path / "film.dcm")

    result = cli("read", film, "--reader", tmp_path / "runs" / "train" / "heart", "--out", "reads")
    assert result.exit_code == 0, result.stderr
    read = Read.model_validate_json((tmp_path / "reads" / "reads.jsonl").read_text())
    assert read.agreement is not None
    assert read.agreement.value is not None
    assert read.agreement.value == pytest.approx(render(spec).cardiothoracic_ratio, abs=0.15)
    assert read.agreement.measure_says == ("positive" if read.agreement.value > 0.5 else "negative")
    assert read.agreement.agree == (read.agreement.classifier_says == read.agreement.measure_says)
    assert any("disagree" in warning for warning in read.warnings) == (read.agreement.agree is False)
    assert read.agreement.sentence in " ".join(result.stdout.split())
    (page,) = (tmp_path / "reads" / "studies").glob("*.html")
    drawn = Page(page.read_text(encoding="utf-8"))
    assert drawn.problems == []
    assert read.agreement.sentence in drawn.one("main").words
    assert len([x for x in drawn.all("path") if "width-line" in x.attributes.get("class", "")]) == 4
    printed = cli("read", film, "--reader", tmp_path / "runs" / "train" / "heart", "--json", "--no-heatmaps")
    assert json.loads(printed.stdout)["agreement"]["limit"] == 0.5
