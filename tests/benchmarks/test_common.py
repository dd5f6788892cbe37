"""The measuring instruments of the benchmarks, on things of known size."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from benchmarks.common import Figure, run_child, summarise, timed, write_figures


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [
        (0.3, "<= 0.3", "yes"),
        (0.31, "<= 0.3", "no"),
        (12.0, ">= 12 images/s", "yes"),
        (11.9, ">= 12", "no"),
        (1.0, "", ""),
    ],
)
def test_bar(value: float, bar: str, met: str) -> None:
    assert Figure("a", value, "s", "once", bar=bar).met == met


def test_a_bar_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="begin it with <= or >="):
        _ = Figure("a", 1.0, "s", "once", bar="about 0.3").met


def test_summary_is_median_and_spread() -> None:
    figure = summarise("a", [3.0, 1.0, 2.0, 10.0], "s", "four runs")
    assert (figure.value, figure.low, figure.high, figure.n) == (2.5, 1.0, 10.0, 4)


def test_warm_up_is_not_counted() -> None:
    calls: list[int] = []
    assert len(timed(lambda: calls.append(1), repeats=3, warm_up=2)) == 3
    assert len(calls) == 5


def test_child_gives_output_code_and_environment() -> None:
    code = "import os, sys; print(os.environ['PLANTED']); print('no', file=sys.stderr); sys.exit(3)"
    child = run_child([sys.executable, "-c", code], {"PLANTED": "yes"})
    assert (child.stdout, child.stderr, child.exit_code) == ("yes\n", "no\n", 3)
    assert child.seconds > 0


def test_peak_memory_counts_what_a_grandchild_holds() -> None:
    hold = "import time; held = bytearray(b'x' * (200 << 20)); time.sleep(0.5)"
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], check=True)"
    empty = run_child([sys.executable, "-c", "pass"])
    for code in (hold, spawn):
        child = run_child([sys.executable, "-c", code])
        assert child.exit_code == 0
        assert child.peak_bytes - empty.peak_bytes > 180 << 20


def test_every_row_carries_protocol_and_machine(tmp_path: Path) -> None:
    out = tmp_path / "results" / "a.csv"
    figures = [summarise("a", [0.123456789], "s", "once, cold", "<= 0.3"), Figure("b", 2.0, "images/s", "twice")]
    write_figures(out, figures)
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["what"], row["value"], row["met"], row["protocol"]) for row in rows] == [
        ("a", "0.123457", "yes", "once, cold"),
        ("b", "2", "", "twice"),
    ]
    for row in rows:
        assert all(row[name] for name in ("machine", "python", "libraries", "date", "load"))


def test_rows_that_stay_keep_their_machine_and_the_others_go(tmp_path: Path) -> None:
    out = tmp_path / "figures.csv"
    write_figures(out, [Figure("old: a", 1.0, "s", "once"), Figure("new: a", 2.0, "s", "once")])
    out.write_text(out.read_text(encoding="utf-8").replace("old: a,1", "old: a,7"), encoding="utf-8")
    write_figures(out, [Figure("new: b", 3.0, "s", "once")], lambda what: what.startswith("old"))
    with out.open(newline="", encoding="utf-8") as stream:
        assert [(row["what"], row["value"]) for row in csv.DictReader(stream)] == [("old: a", "7"), ("new: b", "3")]


def test_nothing_stays_unless_asked(tmp_path: Path) -> None:
    out = tmp_path / "figures.csv"
    for name in ("a", "b"):
        write_figures(out, [Figure(name, 1.0, "s", "once")])
    assert out.read_text(encoding="utf-8").count("\n") == 2
