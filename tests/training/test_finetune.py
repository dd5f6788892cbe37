"""Stopping, going on, and telling others: checkpoints, signals, TensorBoard, MLflow."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.support import blobs, tiny
from wetread.datasets.manifest import Manifest
from wetread.errors import Interrupted, TrainingFailed, UsageError
from wetread.models.backbones import build_network
from wetread.models.card import HeadSpec, InputSpec
from wetread.training.finetune import FinetuneTask, finetune
from wetread.training.fit import train

SPEC = InputSpec(height=32, width=32)
STEPS = 3
"""48 images in batches of 16."""


def task_of(folder: Path, **changes: Any) -> FinetuneTask:
    settings = {"epochs": 3, "averaging": 0.9, "augment": "none", **changes}
    return FinetuneTask(blobs(48), blobs(24, seed=1), SPEC, tiny(**settings), softmax=False, folder=folder)


def network_of() -> Any:
    torch.manual_seed(0)
    return build_network("cnn", HeadSpec(), SPEC, 1, softmax=False)


def stop_after(images: int) -> Callable[[str, int, int], None]:
    """A person who presses Ctrl-C when that many images were seen."""

    def progress(stage: str, done: int, total: int) -> None:
        if "training" in stage and done >= images:
            raise KeyboardInterrupt

    return progress


def epochs_logged(folder: Path) -> list[int]:
    rows: list[int] = []
    for path in sorted(folder.glob("logs/metrics*.csv")):
        with path.open(newline="") as file:
            rows += [int(row["epoch"]) for row in csv.DictReader(file) if row["val_auroc"]]
    return sorted(rows)


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    finetune(network_of(), task_of(tmp_path, epochs=2), progress=lambda *step: seen.append(step))
    assert seen[0] == ("training", 16, 2 * 48)
    assert seen[-1] == ("training", 2 * 48, 2 * 48)
    assert [done for _, done, _ in seen] == [16 * step for step in range(1, 2 * STEPS + 1)]


def test_an_interrupted_run_keeps_its_epoch_and_goes_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"stopped; the last whole epoch is saved in .*checkpoints; go on with --res"):
        finetune(network_of(), task_of(tmp_path), progress=stop_after(48 + 16))
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert signal.getsignal(signal.SIGINT) is before  # Ctrl-C works again in this process

    seen: list[int] = []
    network = finetune(network_of(), task_of(tmp_path), resume=True, progress=lambda _, done, __: seen.append(done))
    assert seen[0] == 48 + 16  # the second epoch from its start, not the first
    assert seen[-1] == 3 * 48
    assert epochs_logged(tmp_path) == [0, 1, 2]  # the learning curve is whole
    assert not network.training


def test_a_run_stopped_before_its_first_epoch_starts_again(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="go on with --resume"):
        finetune(network_of(), task_of(tmp_path), progress=stop_after(16))
    seen: list[int] = []
    finetune(network_of(), task_of(tmp_path), resume=True, progress=lambda _, done, __: seen.append(done))
    assert (seen[0], seen[-1]) == (16, 3 * 48)


def test_a_run_resumed_twice_keeps_its_whole_curve(tmp_path: Path) -> None:
    for images in (48 + 16, 2 * 48 + 16):
        with pytest.raises(Interrupted, match="go on with --resume"):
            finetune(network_of(), task_of(tmp_path), resume=images > 100, progress=stop_after(images))
    finetune(network_of(), task_of(tmp_path), resume=True)
    assert epochs_logged(tmp_path) == [0, 1, 2]


def test_resuming_a_finished_run_changes_no_weight(tmp_path: Path) -> None:
    first = finetune(network_of(), task_of(tmp_path)).state_dict()
    kept = {key: value.clone() for key, value in first.items()}
    again = finetune(network_of(), task_of(tmp_path), resume=True).state_dict()
    assert all(torch.equal(kept[key], again[key]) for key in kept)


def test_an_epoch_after_the_best_is_not_lost(tmp_path: Path) -> None:
    """At a rate of next to nothing the first epoch stays the best: the run goes on behind the third all the same."""
    still = {"learning_rate": 1e-12, "averaging": 0.0, "epochs": 4, "patience": 9}
    with pytest.raises(Interrupted, match="go on with --resume"):
        finetune(network_of(), task_of(tmp_path, **still), progress=stop_after(3 * 48 + 16))
    seen: list[int] = []
    finetune(network_of(), task_of(tmp_path, **still), resume=True, progress=lambda _, done, __: seen.append(done))
    assert seen[0] == 3 * 48 + 16


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    finetune(network_of(), task_of(tmp_path, epochs=1))
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(
        TrainingFailed, match=r"expected a whole checkpoint in .*last.ckpt, got a damaged one; .* or start a new run"
    ):
        finetune(network_of(), task_of(tmp_path, epochs=2), resume=True)


def test_training_stops_when_it_no_longer_gets_better(tmp_path: Path) -> None:
    """A rate of next to nothing: the first epoch stays the best, patience 2 ends the run after the third."""
    task = task_of(tmp_path, epochs=9, patience=2, learning_rate=1e-12, averaging=0.0)
    finetune(network_of(), task)
    assert epochs_logged(tmp_path) == [0, 1, 2]


def test_train_goes_on_with_the_settings_of_the_run(binary: Manifest, tmp_path: Path) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.raises(Interrupted, match="go on with --resume"):
        train(binary, tiny(epochs=2, seed=4), run, cache=cache, progress=stop_after(3 * 16))
    assert not (run / "reader").exists()
    with pytest.raises(UsageError, match="expected a new run folder"):
        train(binary, tiny(epochs=2, seed=4), run, cache=cache)
    result = train(binary, tiny(epochs=2, seed=4), run, cache=cache, resume=True)
    assert result.config.seed == 4
    assert (run / "reader" / "card.json").is_file()
    assert epochs_logged(run) == [0, 1]


def test_folds_go_on_with_the_fold_that_was_stopped(binary: Manifest, tmp_path: Path) -> None:
    config, run = tiny(folds=2, epochs=2), tmp_path / "run"

    def stop_in_second(stage: str, done: int, total: int) -> None:
        if stage == "training fold 2/2" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="fold-2"):
        train(binary, config, run, progress=stop_in_second)
    first = (run / "fold-1" / "checkpoints" / "best.ckpt").read_bytes()
    trained: list[str] = []
    result = train(binary, config, run, resume=True, progress=lambda stage, *_: trained.append(stage))
    assert "training fold 1/2" not in trained
    assert "training fold 2/2" in trained
    assert (run / "fold-1" / "checkpoints" / "best.ckpt").read_bytes() == first
    assert result.card.networks == 2


def test_tensorboard_has_its_events(tmp_path: Path) -> None:
    finetune(network_of(), task_of(tmp_path, epochs=2, tensorboard=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train_loss", "val_loss", "val_auroc"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("val_auroc")) == 2


def test_without_tensorboard_there_are_none(tmp_path: Path) -> None:
    finetune(network_of(), task_of(tmp_path, epochs=1))
    assert not (tmp_path / "tensorboard").exists()


def test_mlflow_gets_settings_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of files needs MLflow's own permission since 3.7; servers are what people use."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlflow").as_uri()
    finetune(network_of(), task_of(tmp_path / "run", epochs=2, mlflow=uri, name="tracked", seed=3))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("wetread")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "tracked"
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "3"
    assert {"train_loss", "val_loss", "val_auroc"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "val_auroc")) == 2


def test_a_store_that_mlflow_cannot_open_is_one_line_without_the_address(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    task = task_of(tmp_path, epochs=1, mlflow="gopher://user:secret@nowhere/runs")
    with pytest.raises(TrainingFailed, match=r"expected an MLflow store, got .*; check --mlflow or drop it") as caught:
        finetune(network_of(), task)
    assert "secret" not in str(caught.value)


def test_a_missing_mlflow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")

    monkeypatch.setattr("lightning.pytorch.loggers.MLFlowLogger", missing)
    with pytest.raises(TrainingFailed, match=r"expected MLflow to be installed, got no such package; install wetread"):
        finetune(network_of(), task_of(tmp_path, epochs=1, mlflow="http://127.0.0.1:9"))


def test_nothing_is_said_beside_the_bar(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """Neither Lightning's greetings nor its warnings reach a person."""
    finetune(network_of(), task_of(tmp_path, epochs=1))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert [str(warning.message) for warning in recwarn] == []


def test_a_run_in_a_thread_is_stopped_by_its_progress(tmp_path: Path) -> None:
    """A service trains in a thread of its own, where signals may not be set and Ctrl-C does not come."""

    def cancelled(_: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Interrupted("cancelled")

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(finetune, network_of(), task_of(tmp_path), progress=cancelled)
        with pytest.raises(Interrupted, match="cancelled"):
            done.result(timeout=300)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
