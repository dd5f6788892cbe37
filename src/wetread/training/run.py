"""The run folder ``runs/train/<name>/``: what every run leaves behind, never overwritten."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.errors import TrainingFailed, UsageError, WetreadError, expected
from wetread.provenance import atomic_file, disk_errors
from wetread.training.config import Config, config_of, config_to_toml, load_recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunFolder", "open_run", "undone_if_refused"]

CONFIG_FILE = "config.toml"


@dataclass(frozen=True)
class RunFolder:
    """The places inside one run."""

    path: Path

    @property
    def reader(self) -> Path:
        """The bundle that the run made."""
        return self.path / "reader"

    @property
    def plots(self) -> Path:
        """Figures, as SVG."""
        return self.path / "plots"

    def write_json(self, name: str, content: Any) -> None:
        """Write ``content`` whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` whole or not at all."""
        with atomic_file(self.path / name, TrainingFailed) as part:
            part.write_text(text, encoding="utf-8")

    def write_predictions(self, table: pd.DataFrame, name: str = "predictions.parquet") -> None:
        """Write the validation (or out-of-fold) predictions."""
        with atomic_file(self.path / name, TrainingFailed) as part:
            table.to_parquet(part, index=False)


def open_run(path: Path, config: Config, *, resume: bool) -> tuple[RunFolder, Config]:
    """Start a run folder, or go on with one (its own settings then hold).

    Raises:
        UsageError: the folder exists and ``resume`` is off, or there is nothing to resume.
    """
    run = RunFolder(path)
    if resume:
        if not (path / CONFIG_FILE).is_file():
            raise UsageError(expected(f"a run to resume in {path}", "none", "start it without --resume"))
        kind = type(config)
        return run, config_of(kind, load_recipe(path / CONFIG_FILE, kind))
    if path.exists() and any(path.iterdir()):
        raise UsageError(
            expected(f"a new run folder {path}", "one that exists", "choose another --name, or --resume it")
        )
    with disk_errors(path, TrainingFailed):
        path.mkdir(parents=True, exist_ok=True)
    run.write_text(CONFIG_FILE, config_to_toml(config))
    return run, config


@contextlib.contextmanager
def undone_if_refused(run: RunFolder, *, resume: bool) -> Iterator[None]:
    """Take the folder of a new run away again where it failed before it made anything but its settings.

    The mended command can then be typed again: a run folder is never overwritten.
    """
    try:
        yield
    except WetreadError:
        if not resume and [path.name for path in run.path.iterdir()] == [CONFIG_FILE]:
            (run.path / CONFIG_FILE).unlink()
            run.path.rmdir()
        raise
