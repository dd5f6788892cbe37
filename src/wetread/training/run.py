"""The run folder ``runs/train/<name>/``: what every run leaves behind, never overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.errors import TrainingFailed, UsageError, expected
from wetread.provenance import atomic_file, disk_errors, write_json_atomically
from wetread.training.config import TrainingConfig, config_to_toml, load_recipe, make_config

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunFolder", "open_run"]

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
        with disk_errors(self.path, TrainingFailed):
            write_json_atomically(self.path / name, content)

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` whole or not at all."""
        with disk_errors(self.path, TrainingFailed):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.path / name) as part:
                part.write_text(text, encoding="utf-8")

    def write_predictions(self, table: pd.DataFrame, name: str = "predictions.parquet") -> None:
        """Write the validation (or out-of-fold) predictions."""
        with disk_errors(self.path, TrainingFailed), atomic_file(self.path / name) as part:
            table.to_parquet(part, index=False)


def open_run(path: Path, config: TrainingConfig, *, resume: bool) -> tuple[RunFolder, TrainingConfig]:
    """Start a run folder, or go on with one (its own settings then hold).

    Raises:
        UsageError: the folder exists and ``resume`` is off, or there is nothing to resume.
    """
    run = RunFolder(path)
    if resume:
        if not (path / CONFIG_FILE).is_file():
            raise UsageError(expected(f"a run to resume in {path}", "none", "start it without --resume"))
        return run, make_config(load_recipe(path / CONFIG_FILE))
    if path.exists() and any(path.iterdir()):
        raise UsageError(
            expected(f"a new run folder {path}", "one that exists", "choose another --name, or --resume it")
        )
    with disk_errors(path, TrainingFailed):
        path.mkdir(parents=True, exist_ok=True)
    run.write_text(CONFIG_FILE, config_to_toml(config))
    return run, config
