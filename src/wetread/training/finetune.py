"""Fine-tuning one network: callbacks, checkpoints, resuming, and stopping by the user."""

from __future__ import annotations

import contextlib
import logging
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from wetread.errors import Interrupted, TrainingFailed, expected
from wetread.models.card import InputSpec
from wetread.models.networks import Network
from wetread.provenance import disk_errors
from wetread.training.augment import recipe_named
from wetread.training.config import TrainingConfig
from wetread.training.data import LabelledImages, Progress
from wetread.training.losses import class_weights
from wetread.training.module import Averaging, FinetuneModule, train_loader, validation_loader

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FinetuneTask", "finetune"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneTask:
    """One network to train: on what, judged by what, and where its checkpoints and logs go."""

    train: LabelledImages
    validation: LabelledImages
    spec: InputSpec
    config: TrainingConfig
    softmax: bool
    folder: Path
    allowed_flips: tuple[str, ...] = ()
    title: str = "training"


class _Report(Callback):
    """Tells the caller how far the run is; stops it where the loss is no number."""

    def __init__(self, title: str, progress: Progress | None) -> None:
        self.title = title
        self.progress = progress

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report images seen and to be seen."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not torch.isfinite(loss):
            raise TrainingFailed(expected("a finite loss", f"{float(loss)}", "lower --learning-rate"))
        if self.progress:
            size = len(batch[0])
            epochs = trainer.max_epochs or 1
            total = int(trainer.num_training_batches) * epochs * size
            self.progress(self.title, trainer.global_step * size, total)


def _loggers(task: FinetuneTask) -> list[Logger]:
    config, folder = task.config, task.folder
    _set_aside(folder / "logs" / "metrics.csv")
    found: list[Logger] = [CSVLogger(folder, name="", version="logs")]
    if config.tensorboard:
        found.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    if config.mlflow:
        found.append(_tracker(config))
    return found


def _set_aside(log: Path) -> None:
    """Keep the figures of an interrupted run beside those to come: Lightning begins its file anew."""
    if log.is_file():
        log.rename(log.with_name(f"metrics-{len(list(log.parent.glob('metrics-*.csv'))) + 1}.csv"))


def _tracker(config: TrainingConfig) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    try:
        tracker = MLFlowLogger("wetread", run_name=config.run_name, tracking_uri=config.mlflow)
        tracker.log_hyperparams(config.model_dump())
    except ModuleNotFoundError as error:
        raise TrainingFailed(
            expected("MLflow to be installed", "no such package", "install wetread[mlflow] or drop --mlflow")
        ) from error
    except Exception as error:  # many trees of errors, whose texts quote the address and a password in it
        cure = "check --mlflow or drop it: a database needs the whole mlflow package, a folder MLFLOW_ALLOW_FILE_STORE"
        raise TrainingFailed(expected("an MLflow store", type(error).__name__, cure)) from error
    return tracker


def _callbacks(task: FinetuneTask, progress: Progress | None) -> tuple[list[Callback], ModelCheckpoint]:
    best = ModelCheckpoint(
        task.folder / "checkpoints",
        filename="best",
        monitor="val_auroc",
        mode="max",
        enable_version_counter=False,
    )
    # ``save_last`` of the best checkpoint is written only when there is a new best; a resumed run needs every epoch.
    last = ModelCheckpoint(task.folder / "checkpoints", filename="last", enable_version_counter=False)
    stop = EarlyStopping("val_auroc", mode="max", patience=task.config.patience, check_finite=False)
    callbacks: list[Callback] = [best, last, stop, _Report(task.title, progress)]
    if task.config.averaging:
        callbacks.insert(0, Averaging(task.config.averaging))
    return callbacks, best


def finetune(
    network: Network, task: FinetuneTask, *, resume: bool = False, progress: Progress | None = None
) -> Network:
    """Train ``network`` and return it with the (averaged) weights of the best validation epoch.

    Raises:
        Interrupted: stopped by the user; ``checkpoints/last.ckpt`` holds the last whole epoch.
        TrainingFailed: the loss is no number, or the disk is full.
    """
    callbacks, best = _callbacks(task, progress)
    targets = task.train.targets
    weights = class_weights(targets, softmax=task.softmax)  # also refuses a single class
    module = FinetuneModule(
        network.to(memory_format=torch.channels_last),
        task.spec,
        task.config,
        recipe_named(task.config.augment, task.allowed_flips),
        softmax=task.softmax,
        weights=weights if task.config.balance == "weights" else None,
    )
    # Lightning says what it found (GPU, tips) at info level; a person asked for a bar, not for that.
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoint = _last_checkpoint(task.folder) if resume else None
    with disk_errors(task.folder, TrainingFailed), _own_interrupt():
        _fit(_trainer(task, callbacks), module, task, checkpoint)
    _load_best(module, Path(best.best_model_path or task.folder / "checkpoints" / "last.ckpt"))
    return network.eval()


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the last whole epoch of a run, or None where it was stopped before its first."""
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return None
    try:
        torch.load(last, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingFailed(
            expected(f"a whole checkpoint in {last}", "a damaged one", "remove it to begin anew, or start a new run")
        ) from error
    return last


@contextlib.contextmanager
def _own_interrupt() -> Iterator[None]:
    """Give Ctrl-C back to its owner: Lightning turns it off for good once it was pressed."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _trainer(task: FinetuneTask, callbacks: Sequence[Callback]) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=task.config.epochs,
        accelerator="auto",
        devices=1,
        logger=_loggers(task),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(10, len(task.train) // task.config.batch_size)),
        gradient_clip_val=1.0,
    )


def _fit(trainer: lightning.Trainer, module: FinetuneModule, task: FinetuneTask, checkpoint: Path | None) -> None:
    with warnings.catch_warnings():
        # Batches are slices of an array in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A run that is resumed has both folders; nothing in them is lost.
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
        # torch renamed a helper that Lightning still calls by its old name.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
        try:
            trainer.fit(
                module,
                train_loader(task.train, task.config, task.config.seed),
                validation_loader(task.validation),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        except (KeyboardInterrupt, SystemExit) as stopped:
            raise Interrupted(_interrupted(task)) from stopped
    if trainer.interrupted:
        raise Interrupted(_interrupted(task))


def _interrupted(task: FinetuneTask) -> str:
    return f"stopped; the last whole epoch is saved in {task.folder / 'checkpoints'}; go on with --resume"


def _load_best(module: FinetuneModule, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    own = {key: value for key, value in cast(dict[str, torch.Tensor], state).items() if key.startswith("network.")}
    module.load_state_dict(own)
