"""Arrays cached on disk by the content they came from, so that nothing is computed twice.

A store is a folder of append-only safetensors shards; each row is named by the sha256 of its
image file. A changed image has another name, so a stale row is never found.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from wetread.errors import TrainingFailed, expected
from wetread.provenance import disk_errors

__all__ = ["Array", "ArrayStore"]

logger = logging.getLogger(__name__)
_SHARD_ROWS = 1024
"""Rows held in memory before a shard is written: work lost when a run is interrupted."""

Array = NDArray[np.generic]


def _wrong_count(wanted: int, got: object) -> TrainingFailed:
    return TrainingFailed(expected(f"{wanted} computed rows", got, "report this as a defect"))


class ArrayStore:
    """Rows of one shape and dtype under ``folder``; ``None`` keeps them in memory only."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def rows(self, names: Sequence[str], compute: Callable[[list[int]], Iterable[Array]]) -> Array:
        """Return the rows called ``names``, stacked; ``compute`` yields those not stored, in order.

        ``compute`` gets the positions in ``names`` that are missing and yields one row for each.

        Raises:
            TrainingFailed: ``compute`` yields another number of rows.
        """
        found = self._stored(set(names))
        missing = [i for i, name in enumerate(names) if name not in found]
        first_of = {names[i]: i for i in reversed(missing)}
        wanted = sorted(first_of.values())
        pending: dict[str, Array] = {}
        done = 0
        # No zip: one that ends with ``wanted`` would leave ``compute`` before its last words.
        for row in compute(wanted) if wanted else ():
            if done == len(wanted):
                raise _wrong_count(len(wanted), "more")
            pending[names[wanted[done]]] = np.asarray(row)
            done += 1
            if len(pending) >= _SHARD_ROWS:
                self._write(pending)
                found |= pending
                pending = {}
        if done != len(wanted):
            raise _wrong_count(len(wanted), done)
        if pending:
            self._write(pending)
            found |= pending
        return np.stack([found[name] for name in names])

    def _stored(self, wanted: set[str]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        if self.folder is None or not self.folder.is_dir():
            return found
        for shard in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(shard, framework="numpy") as file:
                    names = json.loads(file.metadata()["names"])
                    if wanted.isdisjoint(names):
                        continue
                    values = file.get_tensor("rows")
            except (SafetensorError, OSError, KeyError, TypeError, ValueError):
                logger.warning("cache shard %s is damaged and is computed again", shard.name)
                shard.unlink(missing_ok=True)
                continue
            found |= {name: values[i] for i, name in enumerate(names) if name in wanted}
        return found

    def _write(self, rows: dict[str, Array]) -> None:
        if self.folder is None:
            return
        data = save({"rows": np.ascontiguousarray(np.stack(list(rows.values())))}, {"names": json.dumps(list(rows))})
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(suffix=".partial", dir=self.folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                os.replace(scratch, scratch.removesuffix(".partial") + ".safetensors")
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
