"""Progress in a log, JSON for machines, logging to stderr."""

from __future__ import annotations

import json
import logging

import pytest

from wetread.cli import console
from wetread.types import Estimate


def test_progress_line_worked_by_hand() -> None:
    assert (
        console.progress_line("Reading", "images", 20, 50, 10.0) == "Reading: 20 of 50 images, 2.0 images/s, 15 s left"
    )
    assert console.progress_line("Reading", "images", 50, 50, 10.0) == "Reading: 50 of 50 images, 5.0 images/s"
    assert console.progress_line("Reading", "images", 0, 50, 0.0) == "Reading: 0 of 50 images, 0.0 images/s"


def test_plain_progress_is_sparse_and_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 1.0, 2.0, 6.0, 7.0, 8.0])
    monkeypatch.setattr("wetread.cli.console.time.monotonic", lambda: next(now))
    with console.progress("Reading", "films") as advance:
        for done in range(1, 6):
            advance(done, 5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "Reading: 3 of 5 films, 0.5 films/s, 4 s left",
        "Reading: 5 of 5 films, 0.6 films/s",
    ]


def test_json_is_the_only_thing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json(Estimate(value=0.5, n=3))
    console.stderr().print("aside")
    console.warn("careful [bold]")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["value"] == 0.5
    assert captured.err == "aside\n! careful [bold]\n"


def test_json_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"x": float("nan")})


def test_no_colour_where_none_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.stdout().print("red", style="red")
    assert "31" not in capsys.readouterr().out


def test_spinner_is_silent_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with console.spinner("working"):
        pass
    assert capsys.readouterr() == ("", "")


def test_log_goes_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("wetread.somewhere")
    console.log_to_stderr()
    console.log_to_stderr()
    log.warning("shard %s is damaged", "a")
    log.info("not shown")
    assert capsys.readouterr().err == "warning: shard a is damaged\n"


def test_debug_shows_all_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    ours = logging.getLogger("wetread")
    before = ours.level
    try:
        console.log_to_stderr(debug=True)
        logging.getLogger("wetread.somewhere").debug("detail")
        assert capsys.readouterr().err == "debug: detail\n"
    finally:
        ours.setLevel(before)
        console.log_to_stderr()
