"""``train`` from a manifest to a run folder: every task, what is judged by what, and what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.training.support import copied, relabelled, tiny
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, SplitRefused, TrainingFailed, UsageError
from wetread.evaluation.conformal import fit_sets
from wetread.evaluation.operating import choose_operating_points
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationSpec
from wetread.imaging import load_image
from wetread.models.bundle import load_card, load_reader
from wetread.models.card import ReaderCard
from wetread.training.config import TrainingConfig, load_recipe, make_config
from wetread.training.finish import GATE_QUANTILE
from wetread.training.fit import TrainingResult, train
from wetread.types import Task

TASKS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")


@pytest.fixture(scope="module")
def runs(phantoms: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[Task, tuple[Manifest, TrainingResult]]:
    """One run for each task, with unknown labels among the images."""
    folder = tmp_path_factory.mktemp("runs")
    made: dict[Task, tuple[Manifest, TrainingResult]] = {}
    for task in TASKS:
        manifest = relabelled(phantoms, task, unknown=True)
        config = tiny(epochs=2, tensorboard=task == "binary", name=f"run-{task}", seed=1)
        made[task] = manifest, train(manifest, config, folder / task, cache=folder / "cache")
    return made


def labels_for(manifest: Manifest) -> list[str]:
    classes = list(manifest.meta.classes)
    return classes[1:] if manifest.meta.task == "binary" else classes


@pytest.mark.parametrize("task", TASKS)
def test_the_run_folder_holds_what_the_design_says(
    runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task
) -> None:
    _, result = runs[task]
    folder = result.run_folder
    wanted = [
        "config.toml",
        "results.json",
        "provenance.json",
        "predictions.parquet",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "logs/metrics.csv",
        "reader/card.json",
        "reader/README.md",
        "reader/model.safetensors",
        "reader/gate.safetensors",
    ]
    assert [name for name in wanted if not (folder / name).is_file()] == []
    assert make_config(load_recipe(folder / "config.toml")) == result.config
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["seed"] == 1
    assert provenance["hashes"]["model.safetensors"] == result.card.sha256
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "predictions.parquet"), result.predictions)
    assert bool(list((folder / "tensorboard").glob("events.out.tfevents.*"))) == result.config.tensorboard
    leftovers = [path.name for path in folder.rglob(".*")]
    assert leftovers == []


@pytest.mark.parametrize("task", TASKS)
def test_the_card_comes_back_from_disk_and_says_what_was_trained(
    runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task
) -> None:
    manifest, result = runs[task]
    card = load_card(result.reader_folder)
    assert card == result.card
    assert (card.name, card.task, card.classes) == (f"run-{task}", task, manifest.meta.classes)
    assert list(card.labels) == labels_for(manifest)
    train_rows = manifest.table[manifest.table["split"] == "train"]
    assert card.data.images == len(train_rows)
    assert card.data.patients == train_rows["patient"].nunique()
    assert card.training["settings"]["seed"] == 1
    assert card.training["split"]["sha256"] == manifest.meta.split.sha256  # type: ignore[union-attr]
    names = {point.name for point in card.operating_points}
    assert names == {"youden", "sensitivity=0.95", "specificity=0.95"}
    assert card.default_operating_point == "youden"
    assert {row.split for row in card.metrics} == {"validation"}


@pytest.mark.parametrize("task", TASKS)
def test_the_predictions_are_the_validation_images_and_can_be_evaluated(
    runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task
) -> None:
    manifest, result = runs[task]
    table = result.predictions
    judged = manifest.table[manifest.table["split"] == "val"]
    assert sorted(table["image"]) == sorted(judged["path"])
    columns = [f"probability_{label}" for label in labels_for(manifest)]
    shares = table[columns].to_numpy()
    assert ((shares >= 0) & (shares <= 1)).all()
    if task == "multiclass":
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-9)
    spec = EvaluationSpec(
        task=task, classes=manifest.meta.classes, operating_points=result.card.operating_points, resamples=200
    )
    found = evaluate(table, spec, manifest=manifest)
    unknown = judged["label"].isna() if task != "multilabel" else pd.Series(False, index=judged.index)
    assert found.facts.n == int((~unknown).sum())
    for label in found.labels:
        row = next(row for row in result.card.metrics if row.name == f"AUROC {label.label}")
        assert label.metrics["auroc"].value == pytest.approx(row.estimate.value, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_the_reader_says_of_an_image_what_the_run_said(
    runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task
) -> None:
    """The run saw pixels rounded to uint16 (error 8e-6), the reader sees them as they are."""
    manifest, result = runs[task]
    reader = load_reader(result.run_folder)
    rows = result.predictions.head(5)
    images = [load_image(manifest.path_of(path)) for path in rows["image"]]
    forward = reader.forward(reader.prepare(images))
    columns = [f"probability_{label}" for label in labels_for(manifest)]
    np.testing.assert_allclose(reader.probabilities(forward), rows[columns].to_numpy(), atol=1e-4)
    distances = reader.distances(forward)
    assert distances is not None
    np.testing.assert_allclose(distances, rows["gate_distance"].to_numpy(), rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_thresholds_come_from_validation_alone(runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task) -> None:
    """Chosen again from the table of validation predictions they are the same, to the last figure."""
    _, result = runs[task]
    table = result.predictions
    for label in result.card.labels:
        if task == "multilabel":
            truth = table[f"target_{label}"].to_numpy(dtype=float)
        else:
            truth = (table["target"] == label).astype(float).where(table["target"].notna()).to_numpy(dtype=float)
        again = choose_operating_points(
            table[f"probability_{label}"], truth, label, ("youden", "sensitivity=0.95", "specificity=0.95")
        )
        mine = [point for point in result.card.operating_points if point.label == label]
        assert [(p.name, p.threshold) for p in mine] == [(p.name, p.threshold) for p in again]


@pytest.mark.parametrize("task", TASKS)
def test_prediction_sets_come_from_one_validation_image_of_each_patient(
    runs: dict[Task, tuple[Manifest, TrainingResult]], task: Task
) -> None:
    """Made again from the table of validation predictions they are the same; small classes have a note instead."""
    manifest, result = runs[task]
    table = result.predictions
    if task == "multilabel":
        y = table[[f"target_{label}" for label in result.card.labels]].to_numpy(dtype=float)
    else:
        columns = [(table["target"] == label).where(table["target"].notna()) for label in result.card.labels]
        y = np.stack([column.to_numpy(dtype=float, na_value=np.nan) for column in columns], axis=1)
    p = table[[f"probability_{label}" for label in result.card.labels]].to_numpy()
    patients = table["patient"].to_numpy(dtype=str)
    wanted = fit_sets(p, y, task, manifest.meta.classes, patients=patients, seed=1)
    found = result.card.conformal
    assert found is not None
    assert found.model_copy(update={"notes": wanted.notes}) == wanted
    assert found.notes == (
        *wanted.notes,
        "The same images chose settings of the training, so the sets may be somewhat too small.",
    )
    assert found.cases.startswith("one image of each of ")
    for name, n in found.n.items():
        assert (found.conditional[name] is None) == (n < 9)
        assert any(f"class {name} for" in note for note in found.notes) == (n < 9)


def test_the_kept_weights_are_those_of_the_best_epoch(
    runs: dict[Task, tuple[Manifest, TrainingResult]],
) -> None:
    """The area logged for the best epoch is that of the shipped reader: averaged weights and all."""
    for manifest, result in runs.values():
        with (result.run_folder / "logs" / "metrics.csv").open(newline="") as file:
            logged = [float(row["val_auroc"]) for row in csv.DictReader(file) if row["val_auroc"]]
        shipped = [row.estimate.value for row in result.card.metrics]
        assert len(shipped) == len(labels_for(manifest))
        assert np.mean([value for value in shipped if value is not None]) == pytest.approx(max(logged), abs=0.02)
        assert len(logged) == 2


def test_about_one_in_a_hundred_of_validation_is_gated(
    runs: dict[Task, tuple[Manifest, TrainingResult]],
) -> None:
    for _, result in runs.values():
        gate = result.card.gate
        assert gate is not None
        distances = result.predictions["gate_distance"]
        assert gate.n == len(distances)
        assert gate.quantile == GATE_QUANTILE == 0.99
        assert gate.limit == pytest.approx(np.quantile(distances, 0.99))
        assert result.predictions["gated"].sum() == int((distances > gate.limit).sum()) == 1  # of fewer than 100


def test_the_same_seed_gives_the_same_reader_and_another_does_not(binary: Manifest, tmp_path: Path) -> None:
    hashes = [
        train(binary, tiny(seed=seed, augment="robust"), tmp_path / name, cache=tmp_path / "cache").card.sha256
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_run_without_gate_has_none(binary: Manifest, tmp_path: Path) -> None:
    result = train(binary, tiny(gate=False), tmp_path / "run")
    assert result.card.gate is None
    assert not (result.reader_folder / "gate.safetensors").exists()
    assert "gated" not in result.predictions.columns


@pytest.mark.parametrize("mode", ["finetune", "features"])
def test_thresholds_are_chosen_with_the_views_that_the_reader_averages(
    binary: Manifest, tmp_path: Path, mode: str
) -> None:
    result = train(
        binary, tiny(mode=mode, views=3, model="logistic" if mode == "features" else "cnn"), tmp_path / "run"
    )
    assert result.card.views == 3
    reader = load_reader(result.run_folder)
    batch = reader.prepare([load_image(binary.path_of(path)) for path in result.predictions["image"].head(5)])
    said = result.predictions["probability_ill"].head(5)
    np.testing.assert_allclose(reader.probabilities(reader.forward(batch))[:, 0], said, atol=1e-4)
    assert not np.allclose(reader.probabilities(reader.forward(batch, views=1))[:, 0], said, atol=1e-4)


@pytest.mark.parametrize("model", ["logistic", "svm", "knn"])
def test_classic_baselines_on_pixels_make_readers(binary: Manifest, tmp_path: Path, model: str) -> None:
    config = tiny(mode="features", model=model, inputs="pixels")
    result = train(binary, config, tmp_path / "run")
    reader = load_reader(result.run_folder)
    path = result.predictions["image"][0]
    forward = reader.forward(reader.prepare([load_image(binary.path_of(path))]))
    assert reader.probabilities(forward)[0, 0] == pytest.approx(result.predictions["probability_ill"][0], abs=1e-4)
    assert not (result.run_folder / "checkpoints").exists()


def test_features_are_computed_once(binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.training import features

    asked: list[int] = []
    compute = features._compute

    def counted(*arguments: object) -> object:
        asked.append(len(arguments[3]))  # type: ignore[arg-type]
        return compute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(features, "_compute", counted)
    config = tiny(mode="features", model="logistic")
    hashes = [train(binary, config, tmp_path / name, cache=tmp_path / "cache").card.sha256 for name in "ab"]
    assert hashes[0] == hashes[1]
    assert sum(asked) == int(binary.table["split"].isin(["train", "val"]).sum())


def test_a_head_on_features_needs_no_lightning(binary: Manifest, tmp_path: Path) -> None:
    """It takes seconds to import, longer than the fit: looked at in a process of its own."""
    binary.save(tmp_path / "set")
    code = (
        "import sys; from pathlib import Path; from wetread.datasets.manifest import load_manifest;"
        "from wetread.training.fit import train; from wetread.training.config import TrainingConfig;"
        "config = TrainingConfig(model='logistic', inputs='pixels', image_size=32, threads=1);"
        f"train(load_manifest({str(tmp_path / 'set')!r}), config, Path({str(tmp_path / 'run')!r}));"
        "print('HEAVY', sorted({'lightning', 'timm', 'tensorboard', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_folds_judge_every_image_once_by_a_network_that_did_not_see_it(binary: Manifest, tmp_path: Path) -> None:
    result = train(binary, tiny(folds=2), tmp_path / "run", cache=tmp_path / "cache")
    rest = binary.table[binary.table["split"] != "test"]
    table = result.predictions
    assert sorted(table["image"]) == sorted(rest["path"])
    assert set(table["split"]) == {"out-of-fold"}
    assert sorted(table["fold"].unique()) == [0, 1]
    assert table.groupby("patient")["fold"].nunique().max() == 1
    assert result.card.networks == 2
    assert {"model.safetensors", "model-2.safetensors"} <= set(result.card.weights)
    assert result.card.data.images == len(rest)

    # Each network alone says of its own fold what the table says; the reader averages both.
    reader = load_reader(result.run_folder)
    from wetread.models.predict import Reader

    for fold, network in enumerate(reader.networks):
        row = table[table["fold"] == fold].iloc[0]
        image = load_image(binary.path_of(row["image"]))
        alone = Reader(reader.card, [network])
        found = alone.probabilities(alone.forward(alone.prepare([image])))[0, 0]
        assert found == pytest.approx(row["probability_ill"], abs=1e-4)


def test_the_share_gated_out_of_fold_is_that_of_each_fold(binary: Manifest, tmp_path: Path) -> None:
    """Distances of one network mean nothing beside the limit of another."""
    result = train(binary, tiny(folds=2, gate=True), tmp_path / "run")
    for _, table in result.predictions.groupby("fold"):
        assert table["gated"].sum() == 1


def test_the_test_split_is_never_opened(binary: Manifest, tmp_path: Path) -> None:
    manifest = copied(binary, tmp_path / "set")
    tests = manifest.table.index[manifest.table["split"] == "test"]
    assert len(tests) > 3
    for number, row in enumerate(tests):
        file = manifest.path_of(manifest.table["path"][row])
        file.unlink()
        if number % 2:
            file.write_bytes(b"no image at all")
    single = train(manifest, tiny(), tmp_path / "single")
    folded = train(manifest, tiny(folds=2), tmp_path / "folded")
    unseen = set(manifest.table["path"][tests])
    for result in (single, folded):
        assert unseen.isdisjoint(result.predictions["image"])


def refused_folder(folder: Path) -> None:
    """A refusal leaves no run behind, so that the mended command can be typed again."""
    assert not folder.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused(binary: Manifest, tmp_path: Path, split: str) -> None:
    table = binary.table.assign(split=binary.table["split"].where(binary.table["split"] != split))
    manifest = binary.with_table(table, split=None)
    with pytest.raises(SplitRefused, match=f"expected images in the split '{split}', got none; run `wetread dataset s"):
        train(manifest, tiny(), tmp_path / "run")
    refused_folder(tmp_path / "run")


def test_a_run_is_never_overwritten(binary: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"expected a new run folder .*, got one that exists; choose another --name"):
        train(binary, tiny(), folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_there_must_be_something_to_resume(binary: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a run to resume in .*, got none; start it without --resume"):
        train(binary, tiny(), tmp_path / "run", resume=True)
    refused_folder(tmp_path / "run")


@pytest.mark.parametrize("what", ["patient", "sha256"])
def test_a_leak_is_refused(binary: Manifest, tmp_path: Path, what: str) -> None:
    table = binary.table.copy()
    first = {split: table.index[table["split"] == split][0] for split in ("train", "val", "test")}
    table.loc[first["val"], what] = table.loc[first["train"], what]
    manifest = binary.with_table(table, split=None)
    with pytest.raises(SplitRefused, match="expected every patient, study and image in one split, got 1 "):
        train(manifest, tiny(), tmp_path / "run")
    refused_folder(tmp_path / "run")


def test_a_leak_into_test_is_refused_too(binary: Manifest, tmp_path: Path) -> None:
    table = binary.table.copy()
    table.loc[table.index[table["split"] == "test"][0], "patient"] = table[table["split"] == "train"]["patient"].iloc[0]
    with pytest.raises(SplitRefused, match="1 patients in more than one"):
        train(binary.with_table(table, split=None), tiny(), tmp_path / "run")


@pytest.mark.parametrize(("split", "wanted"), [("train", "training"), ("val", "validation")])
def test_a_single_class_is_refused_before_training(binary: Manifest, tmp_path: Path, split: str, wanted: str) -> None:
    table = binary.table.copy()
    table.loc[table["split"] == split, "label"] = "normal"
    seen: list[str] = []
    with pytest.raises(DatasetRefused, match=f"expected {wanted} images of every class, got 0 with"):
        train(
            binary.with_table(table, split=None),
            tiny(),
            tmp_path / "run",
            progress=lambda stage, *_: seen.append(stage),
        )
    assert "training" not in seen
    refused_folder(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": "strong"}, "expected one of the recipes .*, got 'strong'"),
        ({"operating_points": ("youdn",)}, "expected a rule 'youden', .*, got 'youdn'"),
        ({"operating_points": ("sensitivity=2",)}, "expected a target above 0 and at most 1, got 'sensitivity=2'"),
        ({"mode": "features", "model": "cnn"}, "expected an encoder with learned weights for --mode features"),
        ({"inputs": "pixels"}, "expected knn, svm or logistic with --inputs pixels"),
        ({"model": "resnet81"}, "expected the name of a timm network, cnn or pixels, got 'resnet81'; try resnet18"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_any_work(
    binary: Manifest, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    seen: list[str] = []
    with pytest.raises(UsageError, match=message):
        train(binary, tiny(**changes), tmp_path / "run", progress=lambda stage, *_: seen.append(stage))
    assert seen == []
    refused_folder(tmp_path / "run")


@pytest.mark.parametrize("name", ["my run", "../escape", "-x", "a" * 65, ""])
def test_a_name_that_no_card_takes_is_refused_at_once(name: str) -> None:
    with pytest.raises(UsageError, match="expected a valid name, got "):
        make_config({"name": name})


@pytest.mark.parametrize("model", ["hf-hub:timm/resnet18.a1_in1k", "x" * 80])
def test_the_default_name_is_one_that_a_card_takes(model: str) -> None:
    import re

    from wetread.models.card import ReaderCard

    pattern = next(m.pattern for m in ReaderCard.model_fields["name"].metadata if hasattr(m, "pattern"))
    assert re.fullmatch(pattern, TrainingConfig(model=model).run_name)


def test_the_loss_that_is_no_number_stops_the_run(
    binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wetread.training import module

    def diverged(logits: object, *_: object, **__: object) -> object:
        return logits.sum() * float("nan")  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "classification_loss", diverged)
    with pytest.raises(TrainingFailed, match="expected a finite loss, got nan; lower --learning-rate"):
        train(binary, tiny(), tmp_path / "run")


@pytest.mark.parametrize("step", ["checkpoint", "reader", "predictions", "results"])
def test_a_full_disk_is_one_line(binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {
        "checkpoint": "lightning.pytorch.trainer.Trainer.save_checkpoint",
        "reader": "safetensors.torch.save_file",
        "predictions": "pandas.DataFrame.to_parquet",
        "results": "pathlib.Path.write_text",
    }[step]
    if step == "results":
        monkeypatch.setattr("wetread.training.outcome.save_reader", _then(monkeypatch, target, full))
    else:
        monkeypatch.setattr(target, full)
    with pytest.raises(TrainingFailed, match=r"expected room to write .*, got a full disk .*; free some space"):
        train(binary, tiny(), tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    if step == "reader":
        assert not (tmp_path / "run" / "reader").exists()


def _then(monkeypatch: pytest.MonkeyPatch, target: str, full: object) -> object:
    """Save the reader as ever, and only then fill the disk."""
    from wetread.models.bundle import save_reader

    def save(folder: Path, card: ReaderCard, *rest: Any, **named: Any) -> ReaderCard:
        card = save_reader(folder, card, *rest, **named)
        monkeypatch.setattr(target, full)
        return card

    return save
