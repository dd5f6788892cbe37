"""``wetread node`` as a process: receive, read with a real reader, explain, check, letters."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.conftest import CliResult
from tests.pacs.node_support import film, running
from tests.reading.support import shared_bundle, write_films
from wetread.cli.node import study_reader
from wetread.errors import WetreadError
from wetread.explain.overlay import heat_rgba
from wetread.pacs import client
from wetread.pacs.drawing import heat_of
from wetread.pacs.node import Node
from wetread.settings import NodeRemote, NodeRule, NodeSettings

Cli = Callable[..., CliResult]


@pytest.fixture(autouse=True)
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_process_receives_and_ends_in_order(cli: Cli, tmp_path: Path) -> None:
    start = "from wetread.cli.main import main; main()"
    words = [sys.executable, "-c", start, "node", "--receive-only", "--port", "0", "--folder", str(tmp_path / "n")]
    environment = os.environ | {"WETREAD_NODE__RESERVE_BYTES": "0", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"WETREAD listens on 127\.0\.0\.1:(\d+), reads nothing", line)
        assert found is not None, line
        remote = NodeRemote(title="WETREAD", host="127.0.0.1", port=int(found[1]))
        assert client.send_files(remote, "CT1", [film(tmp_path / "film.dcm")]) == {}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
        assert process.returncode == 0
    checked = cli("node", "check", "--folder", tmp_path / "n")
    assert (checked.exit_code, checked.stdout) == (0, "1 objects, 0 broken, 0 to send, 0 dead letters\n")
    explained = cli("node", "explain", "--folder", tmp_path / "n")
    assert "no rule takes it: it is stored and not read" in explained.stdout
    (kept,) = (tmp_path / "n" / "objects").rglob("*.dcm")
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    again = cli("node", "check", "--folder", tmp_path / "n")
    assert again.exit_code == 1
    assert "broken: " in again.stderr


def test_explain_says_which_rule_takes_a_study_and_why(cli: Cli, tmp_path: Path) -> None:
    Path("wetread.toml").write_text(
        '[[node.rules]]\nname = "children"\nreader = "a"\nage_below = 16\n'
        '[[node.rules]]\nname = "adults"\nreader = "b"\nmodalities = ["CR"]\n'
        '[[node.rules]]\nname = "rest"\nreader = "c"\n'
    )
    sent = film(tmp_path / "film.dcm")
    study = str(pydicom.dcmread(sent).StudyInstanceUID)
    with running(tmp_path / "n") as node:
        client.send_files(NodeRemote(title="WETREAD", host="127.0.0.1", port=node.port), "CT1", [sent])
        result = cli("node", "explain", study, "--folder", tmp_path / "n")  # beside the running node
    assert result.stdout.splitlines() == [
        f"study {study}",
        "  rule children: does not take it",
        "    images that can be read: wants at least 1, study has 1: yes",
        "    age: wants below 16 years, study has 45 years: no",
        "  rule adults: takes it: reader b, to nobody",
        "    images that can be read: wants at least 1, study has 1: yes",
        "    modality: wants CR, study has CR: yes",
        "  rule rest: not reached",
    ]
    unknown = cli("node", "explain", "9.9", "--folder", tmp_path / "n")
    assert (unknown.exit_code, "expected a study that was received, got '9.9'" in unknown.stderr) == (2, True)


def test_films_are_read_by_a_real_reader_and_answered_at_a_peer(tmp_path: Path) -> None:
    (path,) = write_films(tmp_path, 1)
    with running(tmp_path / "peer") as peer:
        remote = NodeRemote(
            title="WETREAD", host="127.0.0.1", port=peer.port, results=("sr", "heat", "gsps", "sc", "pdf")
        )
        rule = NodeRule(name="all", reader=str(shared_bundle()), to=("peer",))
        settings = NodeSettings(
            folder=tmp_path / "n", port=0, reserve_bytes=0, quiet_s=600, remotes={"peer": remote}, rules=(rule,)
        )
        node = Node(settings, study_reader())
        try:
            own = NodeRemote(title="WETREAD", host="127.0.0.1", port=node.start(work=False))
            assert client.send_files(own, "CT1", [path]) == {}
            taken, arrived = node.work_once(time.time() + 6000)
            assert taken == 1
            assert arrived in (4, 5)  # a film without a positive label has no heat map to send
        finally:
            node.stop()
        image = pydicom.dcmread(path)
        for row in peer.store.study(str(image.StudyInstanceUID)):
            data = pydicom.dcmread(row.path)
            assert data.PatientID == image.PatientID
            assert data.SOPClassUID != image.SOPClassUID


def test_the_heat_of_a_picture_is_what_was_drawn() -> None:
    heat = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.abs(heat_of(heat_rgba(heat)) - heat).max() <= 0.5 / 255 + 1e-6
    with pytest.raises(WetreadError, match="expected a heat map in the colours of the scale, got others"):
        heat_of(np.full((2, 2, 4), 77, np.uint8))


def test_no_letters_are_told_as_none(cli: Cli, tmp_path: Path) -> None:
    result = cli("node", "letters", "--again", "--folder", tmp_path / "n")
    assert (result.exit_code, result.stdout) == (0, "0 dead letters, 0 will be tried again\n")


def test_a_second_node_on_the_folder_is_refused(cli: Cli, tmp_path: Path) -> None:
    with running(tmp_path / "n"):
        result = cli("node", "--port", "0", "--folder", tmp_path / "n")
    assert result.exit_code == 2
    assert "expected a folder of this node alone" in result.stderr
