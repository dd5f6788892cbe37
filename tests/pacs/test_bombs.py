"""Bombs at every door that a stranger's file comes in by: each is refused by an error of ours, soon and for little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bombs import BOMBS, MOST_BYTES, MOST_S, Outcome


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """All bombs, opened once, in processes forked from one without pytest and torch in it."""
    words = [sys.executable, "-m", "benchmarks.bombs", "--json"]
    root = Path(__file__).parents[2]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    found = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    return {one.bomb: one for one in found}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_soon_and_for_little_memory(outcomes: dict[str, Outcome], bomb: str) -> None:
    """Orthanc CVE-2026-5438, 5439, 5440 (streams), 5437, 5441 to 5445 (dimensions); GDCM CVE-2026-3650."""
    one = outcomes[bomb]
    assert one.ours, f"{one.error}: {one.message}"
    assert "expected" in one.message
    assert one.cpu_s <= MOST_S  # the clock on the wall depends on what else runs
    assert one.peak_bytes <= MOST_BYTES
