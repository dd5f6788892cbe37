"""What `read` and `segment` share: names made from images' names, lines of JSON, and the table of failures."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from wetread.reading.feed import ReadFailure
    from wetread.types import Record

__all__ = ["FAILURES", "Slugs", "print_line", "refuse_existing", "safe_name", "write_failures"]

FAILURES = "failures.csv"


def safe_name(name: str) -> str:
    """Letters, digits, dot, dash and underscore; a path becomes one name without a leading dot."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")


class Slugs:
    """File names made from images' names, each unlike all others of the folder."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        """Return a new file name for the image ``name``."""
        base = safe_name(name)[:80] or "image"
        slug, number = base, 1
        while slug.lower() in self._taken:
            number += 1
            slug = f"{base}-{number}"
        self._taken.add(slug.lower())
        return slug


def write_failures(path: Path, failures: Iterable[ReadFailure]) -> None:
    """Write ``failures.csv``: file, class of the error, message."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "error", "message"))
        writer.writerows((one.name, one.error, one.message) for one in failures)


def print_line(result: Record | ReadFailure) -> None:
    """Write one line of JSON: a record, or ``{"file", "error", "message"}`` for a file that failed."""
    from wetread.types import Record

    if isinstance(result, Record):
        line = result.model_dump_json()
    else:
        failed = {"file": result.name, "error": result.error, "message": result.message}
        line = json.dumps(failed, ensure_ascii=False)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def refuse_existing(out: Path | None, overwrite: bool) -> None:
    """Raise UsageError where ``out`` is a file, or a folder with files that may not be replaced."""
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise UsageError(expected("a folder for --out", f"a file: {out}", "name another"))
    if any(out.iterdir()) and not overwrite:
        raise UsageError(
            expected("a new or empty folder for --out", f"{out}, which has files", "name another, or add --overwrite")
        )
