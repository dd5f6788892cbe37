"""``wetread calibrate`` on images whose grey is the evidence: what is fitted, written, printed and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import nn
from typer.testing import CliRunner, Result

from tests.models.support import card_for
from wetread.cli import calibrate as verb
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, SplitRefused, UsageError, WetreadError
from wetread.evaluation.calibration import fit_temperature
from wetread.evaluation.conformal import fit_sets
from wetread.models.backbones import build_network
from wetread.models.bundle import load_any_card, load_card, load_reader, save_reader
from wetread.models.card import GateSpec, HeadSpec, InputSpec, MetricRow, ReaderCard
from wetread.models.outlier import fit_statistics
from wetread.provenance import rows_sha256
from wetread.types import Estimate, Task

Invoke = Callable[..., Result]
OVERCONFIDENT = 3.0
SPEC = InputSpec(height=32, width=32, standardise="fixed")
CLASSES: dict[Task, tuple[str, ...]] = {
    "binary": ("well", "ill"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("a", "b"),
}
SIGNS: dict[Task, tuple[float, ...]] = {"binary": (1,), "multiclass": (1, 0, -1), "multilabel": (1, -1)}


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(verb.command)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def refused(result: Result, error: type[WetreadError]) -> str:
    assert isinstance(result.exception, error), result.output
    return str(result.exception)


def truth_of(evidence: NDArray[np.float64], task: Task, generator: np.random.Generator) -> NDArray[np.float64]:
    """Targets (n, outputs) whose log odds are the evidence (n,) times the sign of each output."""
    z = evidence[:, None] * np.array(SIGNS[task])
    if task != "multiclass":
        return np.asarray(generator.random(z.shape) < 1 / (1 + np.exp(-z)), dtype=np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    chosen = (generator.random((len(z), 1)) > p.cumsum(axis=1)).sum(axis=1)
    return np.asarray(np.eye(3)[chosen.astype(np.intp)])


def write_dataset(folder: Path, task: Task = "binary", patients: int = 120, name: str = "greys") -> Manifest:
    """Two images of each patient, whose grey is .5 for even odds; three quarters of the patients are ``val``."""
    generator = np.random.default_rng(0)
    evidence = generator.normal(0, 1.6, 2 * patients).clip(-7, 7)
    y = truth_of(evidence, task, generator)
    (folder / "images").mkdir(parents=True)
    for number, value in enumerate(evidence):
        grey = np.round(255 * (0.5 + value / 16) + generator.normal(0, 0.5, (32, 32)))
        PilImage.fromarray(grey.astype(np.uint8)).save(folder / "images" / f"{number:03d}.png")
    table = pd.DataFrame({"path": [f"images/{number:03d}.png" for number in range(len(y))]})
    table["patient"] = [f"p{number // 2:03d}" for number in range(len(y))]
    table["split"] = [("test", "val", "val", "val")[number // 2 % 4] for number in range(len(y))]
    if task == "multilabel":
        table["label_a"], table["label_b"] = y[:, 0], y[:, 1]
        table.loc[:4, "label_b"] = None
    else:
        names = np.array(CLASSES[task])
        table["label"] = names[y[:, 0].astype(int) if task == "binary" else y.argmax(axis=1)]
    manifest = Manifest(table, DatasetMeta(name=name, task=task, classes=CLASSES[task]), folder)
    manifest.save(folder)
    return manifest


def write_reader(folder: Path, task: Task = "binary", **changes: Any) -> ReaderCard:
    """A reader of the mean grey whose logits are three times the log odds."""
    labels = CLASSES[task][1:] if task == "binary" else CLASSES[task]
    network = build_network("pixels", HeadSpec(dropout=0.0), SPEC, len(labels), softmax=task == "multiclass")
    linear = network.head[1]  # type: ignore[index]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        signs = torch.tensor(SIGNS[task])[:, None]
        linear.weight.copy_((signs * 4 * OVERCONFIDENT / 1024).expand(-1, 1024))
        linear.bias.zero_()
    statistics = changes.pop("statistics", None)
    fields = {"architecture": "pixels", "input": SPEC, "task": task, "classes": CLASSES[task], **changes}
    return save_reader(folder, card_for(labels, **fields), [network], statistics)


@pytest.fixture
def dataset(tmp_path: Path) -> Manifest:
    return write_dataset(tmp_path / "data")


def val_rows(manifest: Manifest) -> pd.DataFrame:
    return manifest.table[manifest.table["split"] == "val"].reset_index(drop=True)


def pixels_of(manifest: Manifest) -> NDArray[np.float64]:
    """The validation images (n, 32, 32) in [0, 1], from the files themselves."""
    files = [manifest.path_of(path) for path in val_rows(manifest)["path"]]
    return np.array([np.asarray(PilImage.open(file)) for file in files]) / 255


def logits_by_hand(manifest: Manifest) -> NDArray[np.float64]:
    return np.asarray(4 * OVERCONFIDENT * (pixels_of(manifest).mean(axis=(1, 2)) - 0.5) / 0.25)


def ill(manifest: Manifest) -> NDArray[np.float64]:
    return np.asarray(val_rows(manifest)["label"] == "ill", dtype=np.float64)


def test_everything_is_fitted_to_the_split_and_the_weights_stay(
    invoke: Invoke, dataset: Manifest, tmp_path: Path
) -> None:
    old = write_reader(tmp_path / "old")
    result = invoke(tmp_path / "old", "--data", tmp_path / "data", "--out", tmp_path / "here", "--seed", 2)
    assert result.exit_code == 0, result.exception
    new = load_card(tmp_path / "here")
    assert (new.name, new.weights) == ("here", old.weights)
    assert load_card(tmp_path / "old") == old
    rows = val_rows(dataset)
    y = ill(dataset)[:, None]
    z = logits_by_hand(dataset)[:, None]
    assert new.temperature == pytest.approx(fit_temperature(z, y, "binary"), rel=1e-4)
    assert new.temperature == pytest.approx(OVERCONFIDENT, rel=0.35)
    p = 1 / (1 + np.exp(-z / new.temperature))
    wanted = fit_sets(p, y, "binary", CLASSES["binary"], patients=rows["patient"].to_numpy(dtype=str), seed=2)
    assert new.conformal is not None
    assert (new.conformal.cases, new.conformal.n) == (wanted.cases, wanted.n)
    assert new.conformal.conditional == pytest.approx(wanted.conditional, abs=1e-4)
    assert [point.name for point in new.operating_points] == ["youden", "sensitivity=0.95", "specificity=0.95"]
    assert {point.rule.split(",")[0].split(" on ")[1] for point in new.operating_points} == {"val of greys"}
    assert new.limits[-1].startswith("Probabilities, thresholds and prediction sets were fitted on val of greys (180")
    assert new.training["calibration"]["reader_sha256"] == old.sha256
    assert [row.split for row in new.metrics] == ["val of greys"]


def test_before_and_after_are_shown_and_after_is_better(invoke: Invoke, dataset: Manifest, tmp_path: Path) -> None:
    write_reader(tmp_path / "old")
    found = json.loads(invoke("old", "--data", "data", "--json").stdout)
    before, after = found["before"], found["after"]
    assert (found["images"], found["patients"], found["gated"]) == (180, 90, 0)
    assert after["nll"] < before["nll"] - 0.05
    assert (before["ece"]["ill"]["verdict"], before["temperature"]) == ("FAIL", 1.0)
    assert after["ece"]["ill"]["verdict"] != "FAIL"
    assert after["ece"]["ill"]["patients"] == 90
    assert before["sets"] == {"all classes": None}
    sets = after["sets"]["all classes"]
    assert 0.8 < sets["coverage"]["value"] < 0.98  # other patients than those of the quantiles
    assert set(sets["by_class"]) == {"well", "ill"}
    shown = invoke("old", "--data", "data", "--out", "again").stdout
    for words in (
        "180 images of 90 patients",
        "NLL (nats)",
        "ECE ill, perfect reader below",
        "no quantiles",
        "abstains",
    ):
        assert words in shown


def test_the_new_reader_is_honest_and_calibrating_it_again_changes_nothing(
    invoke: Invoke, dataset: Manifest, tmp_path: Path
) -> None:
    write_reader(tmp_path / "old")
    invoke("old", "--data", "data", "--out", "one")
    again = json.loads(invoke("one", "--data", "data", "--out", "two", "--json").stdout)
    one, two = load_card(tmp_path / "one"), load_card(tmp_path / "two")
    assert two.temperature == pytest.approx(one.temperature, rel=1e-6)
    assert two.conformal == one.conformal
    sets = again["before"]["sets"]["all classes"]
    assert sets["coverage"]["value"] == pytest.approx(0.9, abs=0.05)  # its own images
    assert load_reader(tmp_path / "two").card == two


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_other_tasks(invoke: Invoke, task: Task, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", task)
    write_reader(tmp_path / "old", task)
    found = json.loads(invoke("old", "--data", "data", "--alpha", 0.2, "--json").stdout)
    assert found["temperature"] == pytest.approx(OVERCONFIDENT, rel=0.35)
    assert set(found["after"]["sets"]) == ({"all classes"} if task == "multiclass" else {"a", "b"})
    card = load_card(tmp_path / "small-calibrated")
    assert card.conformal is not None
    assert card.conformal.alpha == 0.2
    keys = CLASSES[task] if task == "multiclass" else ("no a", "a", "no b", "b")
    assert tuple(card.conformal.n) == keys
    for sets in found["after"]["sets"].values():
        assert sets["coverage"]["value"] == pytest.approx(0.8, abs=0.1)


def test_images_that_the_gate_refuses_are_left_out(invoke: Invoke, dataset: Manifest, tmp_path: Path) -> None:
    greys = pixels_of(dataset).reshape(180, 1024).astype(np.float32)
    statistics = fit_statistics((greys - 0.5) / 0.25, 4)
    distances = statistics.distances((greys - 0.5) / 0.25)
    gate = GateSpec(limit=float(np.quantile(distances, 0.8)), quantile=0.8, n=180, components=4)
    write_reader(tmp_path / "old", statistics=statistics, gate=gate)
    found = json.loads(invoke("old", "--data", "data", "--json").stdout)
    assert (found["images"], found["gated"]) == (144, 36)
    passed = distances <= gate.limit
    wanted = fit_temperature(logits_by_hand(dataset)[passed], ill(dataset)[passed], "binary")
    assert found["temperature"] == pytest.approx(wanted, rel=1e-4)
    closed = gate.model_copy(update={"limit": 0.0})
    write_reader(tmp_path / "closed", statistics=statistics, gate=closed)
    message = refused(invoke("closed", "--data", "data", "--out", "none"), DatasetRefused)
    assert message.startswith("expected images that small was built for, got 180 that its gate refuses")
    assert not (tmp_path / "none").exists()


def test_few_images_give_no_sets_and_say_so(invoke: Invoke, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", patients=10)
    write_reader(tmp_path / "old")
    result = invoke("old", "--data", "data", "--out", "here")
    assert result.exit_code == 0, result.exception
    assert "at least 50 cases and 10 of each class to judge calibration" in result.stderr
    assert "at least 9 calibration images for an error rate of 0.1" in result.stderr
    assert "not given" in result.stdout
    card = load_card(tmp_path / "here")
    assert card.conformal is not None
    assert set(card.conformal.marginal.values()) == {None}


def test_without_patients_every_image_counts_and_the_card_says_so(
    invoke: Invoke, dataset: Manifest, tmp_path: Path
) -> None:
    write_reader(tmp_path / "old")
    dataset.with_table(dataset.table.assign(patient=None)).save(tmp_path / "data")
    found = json.loads(invoke("old", "--data", "data", "--out", "here", "--json").stdout)
    assert found["patients"] == 180
    card = load_card(tmp_path / "here")
    assert card.conformal is not None
    assert card.conformal.cases == "every image (180), as if each were of another patient"


def test_figures_of_the_old_probabilities_are_left_out(invoke: Invoke, dataset: Manifest, tmp_path: Path) -> None:
    value = Estimate(value=0.9, low=0.8, high=0.95, n=50, method="Wilson")
    rows = (
        MetricRow(name="AUROC ill", split="official test", estimate=value),
        MetricRow(name="ECE ill", split="official test", estimate=value),
        MetricRow(name="sensitivity", split="official test", operating_point="youden", estimate=value),
    )
    write_reader(tmp_path / "old", metrics=rows, limits=("Adults only.",), audit_verdict="FAIL")
    invoke("old", "--data", "data", "--out", "here")
    card = load_card(tmp_path / "here")
    assert [(row.name, row.split) for row in card.metrics] == [
        ("AUROC ill", "official test"),
        ("AUROC ill", "val of greys"),
    ]
    assert card.limits[0] == "Adults only."
    assert card.audit_verdict == "FAIL"


def test_the_test_split_and_the_training_images_are_refused(invoke: Invoke, dataset: Manifest, tmp_path: Path) -> None:
    rows = val_rows(dataset)
    learned = rows_sha256(zip(rows["path"], rows["patient"], strict=True))
    card = write_reader(tmp_path / "old")
    write_reader(tmp_path / "learned", data=card.data.model_copy(update={"sha256": learned}))
    message = refused(invoke("old", "--data", "data", "--split", "test"), SplitRefused)
    assert message == (
        "expected a split to calibrate on, got test, which could then no longer measure this reader; "
        "use --split val; wetread dataset split makes one"
    )
    message = refused(invoke("learned", "--data", "data"), SplitRefused)
    assert message.startswith("expected images that the reader did not learn from, got those it was trained on (val)")
    named = card.data.model_copy(update={"name": "greys"})
    write_reader(tmp_path / "named", data=named)
    assert "trained on (train)" in refused(invoke("named", "--data", "data", "--split", "train"), SplitRefused)
    assert "images in the split 'train', got none" in refused(
        invoke("old", "--data", "data", "--split", "train"), SplitRefused
    )


def test_other_labels_are_refused(invoke: Invoke, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "multilabel", patients=8)
    write_reader(tmp_path / "old")
    assert "a binary data set, got a multilabel one" in refused(invoke("old", "--data", "data"), DatasetRefused)


def test_nothing_is_overwritten(invoke: Invoke, dataset: Manifest, tmp_path: Path) -> None:
    write_reader(tmp_path / "old")
    for place in ("old", "data"):
        before = sorted(path.name for path in (tmp_path / place).iterdir())
        message = refused(invoke("old", "--data", "data", "--out", place), UsageError)
        assert message == f"expected a new folder, got {place}, which exists; name another with --out"
        assert sorted(path.name for path in (tmp_path / place).iterdir()) == before
    assert load_any_card(tmp_path / "old").name == "small"


def test_flags_are_checked_before_any_work(invoke: Invoke, tmp_path: Path) -> None:
    write_reader(tmp_path / "old")
    message = refused(invoke("old", "--data", "nowhere", "--alpha", 1.5), UsageError)
    assert message == "expected --alpha between 0 and 1, got 1.5; set e.g. 0.1"
    assert "got 'a b'; name another with --out" in refused(
        invoke("old", "--data", "nowhere", "--out", "a b"), UsageError
    )
