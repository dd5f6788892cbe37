"""The training loop that every kind of network shares: callbacks, checkpoints, resuming, stopping by the user."""

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
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from wetread.errors import Interrupted, TrainingFailed, expected
from wetread.provenance import disk_errors
from wetread.training.config import LoopSettings
from wetread.training.data import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Averaging", "Loop", "run_loop", "scheduled"]

_RISE = 0.25
"""Share of the steps in which the one-cycle rate rises."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loop:
    """One network's training: its settings, where checkpoints and logs go, and what says which epoch is best.

    ``monitor`` is a logged value of the module, larger is better; ``images`` is the number trained on.
    """

    config: LoopSettings
    folder: Path
    monitor: str
    images: int
    title: str = "training"


class Averaging(WeightAveraging):
    """Exponential moving average of weights and statistics, warmed up so that short runs are not left behind.

    The decay after n updates is ``min(decay, (1 + n) / (10 + n))``. Validation and the
    saved reader use the averaged weights.
    """

    def __init__(self, decay: float) -> None:
        def average(kept: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
            count = float(updates)
            weight = 1 - min(decay, (1 + count) / (10 + count))
            if torch.is_floating_point(kept[0]):
                torch._foreach_lerp_(kept, current, weight)
            else:
                torch._foreach_copy_(kept, current)

        super().__init__(use_buffers=True, multi_avg_fn=torch.no_grad()(average))


def scheduled(optimiser: torch.optim.Optimizer, config: LoopSettings, steps: int) -> Any:
    """The optimiser with its rates over ``steps`` steps, one-cycle or cosine, as Lightning takes it."""
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if config.schedule == "onecycle":
        rise = _RISE + (0.01 if steps * _RISE == 1 else 0.0)  # torch divides by zero where one step rises
        rates = [float(group["lr"]) for group in optimiser.param_groups]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=rise)
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


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


def _loggers(loop: Loop) -> list[Logger]:
    config, folder = loop.config, loop.folder
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


def _tracker(config: LoopSettings) -> Logger:
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


def _callbacks(loop: Loop, progress: Progress | None) -> tuple[list[Callback], ModelCheckpoint]:
    best = ModelCheckpoint(
        loop.folder / "checkpoints",
        filename="best",
        monitor=loop.monitor,
        mode="max",
        enable_version_counter=False,
    )
    # ``save_last`` of the best checkpoint is written only when there is a new best; a resumed run needs every epoch.
    last = ModelCheckpoint(loop.folder / "checkpoints", filename="last", enable_version_counter=False)
    stop = EarlyStopping(loop.monitor, mode="max", patience=loop.config.patience, check_finite=False)
    callbacks: list[Callback] = [best, last, stop, _Report(loop.title, progress)]
    if loop.config.averaging:
        callbacks.insert(0, Averaging(loop.config.averaging))
    return callbacks, best


def run_loop(
    module: lightning.LightningModule,
    loop: Loop,
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> None:
    """Train ``module`` on (training, validation) batches; it ends with the weights of its best epoch.

    Raises:
        Interrupted: stopped by the user; ``checkpoints/last.ckpt`` holds the last whole epoch.
        TrainingFailed: the loss is no number, or the disk is full.
    """
    callbacks, best = _callbacks(loop, progress)
    # Lightning says what it found (GPU, tips) at info level; a person asked for a bar, not for that.
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    checkpoint = _last_checkpoint(loop.folder) if resume else None
    with disk_errors(loop.folder, TrainingFailed), _own_interrupt():
        _fit(_trainer(loop, callbacks), module, loop, loaders, checkpoint)
    _load_best(module, Path(best.best_model_path or loop.folder / "checkpoints" / "last.ckpt"))


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


def _trainer(loop: Loop, callbacks: Sequence[Callback]) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=loop.config.epochs,
        accelerator="auto",
        devices=1,
        logger=_loggers(loop),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(10, loop.images // loop.config.batch_size)),
        gradient_clip_val=1.0,
    )


def _fit(
    trainer: lightning.Trainer,
    module: lightning.LightningModule,
    loop: Loop,
    loaders: tuple[DataLoader[Any], DataLoader[Any]],
    checkpoint: Path | None,
) -> None:
    with warnings.catch_warnings():
        # Batches are slices of an array in memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A run that is resumed has both folders; nothing in them is lost.
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
        # torch renamed a helper that Lightning still calls by its old name.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
        try:
            trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
        except (KeyboardInterrupt, SystemExit) as stopped:
            raise Interrupted(_interrupted(loop)) from stopped
    if trainer.interrupted:
        raise Interrupted(_interrupted(loop))


def _interrupted(loop: Loop) -> str:
    return f"stopped; the last whole epoch is saved in {loop.folder / 'checkpoints'}; go on with --resume"


def _load_best(module: lightning.LightningModule, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    own = {key: value for key, value in cast(dict[str, Tensor], state).items() if key.startswith("network.")}
    module.load_state_dict(own)
