"""Studies read together: one that fails fails alone, what was kept is kept whole, and a crash in between is made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from tests.pacs.node_support import film
from tests.pacs.test_node import answer, events, started
from tests.reading.support import shared_bundle
from wetread.cli.node import study_reader
from wetread.datasets.phantoms import render, sample_spec, write_dicom
from wetread.errors import WetreadError
from wetread.pacs import answer as answer_module
from wetread.pacs import client
from wetread.pacs import hands as hands_module
from wetread.pacs.answer import StudyAnswer, StudyTask
from wetread.pacs.hands import Hands
from wetread.pacs.node import Node
from wetread.settings import NodeRemote, NodeRule, NodeSettings

LATER_S = 6000.0
AWAY = NodeRemote(title="PEER", host="127.0.0.1", port=9, results=("sr",))
"""A remote that is never called here."""


def node_with(folder: Path, read: Any, count: int, **changes: Any) -> tuple[Node, list[str]]:
    """A node that has received ``count`` studies of one film; and their UIDs in the order of arrival."""
    chosen = {"remotes": {"pacs": AWAY}, "rules": (NodeRule(name="all", reader="any", to=("pacs",)),)} | changes
    films = [film(folder / f"{number}.dcm", number) for number in range(count)]
    with started(folder / "node") as (_, own):
        for path in films:
            assert client.send_files(own, "CT1", [path]) == {}
    settings = NodeSettings(folder=folder / "node", reserve_bytes=0, quiet_s=600.0, **chosen)
    return Node(settings, read), [str(pydicom.dcmread(path).StudyInstanceUID) for path in films]


def take_up(node: Node) -> int:
    return node._read_due(time.time() + LATER_S)


def states(node: Node) -> list[tuple[bool, str]]:
    rows = node.store.ledger.read("SELECT done >= arrivals, error FROM studies ORDER BY last_arrival")
    return [(bool(done), error or "") for done, error in rows]


def jobs(node: Node) -> list[str]:
    return [row[0] for row in node.store.ledger.read("SELECT payload FROM jobs ORDER BY id")]


def test_studies_of_one_rule_are_read_together_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def read(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
        asked.append([task.study for task in tasks])
        yield from answer(tasks)

    node, studies = node_with(tmp_path, read, 3)
    try:
        assert take_up(node) == 3
        assert asked == [studies]
        assert states(node) == [(True, "")] * 3
        assert len(jobs(node)) == 3
        told = [row[0] for row in node.store.ledger.read("SELECT detail FROM events WHERE kind = 'study read'")]
        assert [study in line for study, line in zip(studies, told, strict=True)] == [True] * 3
        assert take_up(node) == 0
    finally:
        node.stop()


def test_one_study_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    studies: list[str] = []

    def read(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
        for task in tasks:
            if task.study == studies[1]:
                raise WetreadError("expected a film, got a note; send it again")
            yield from answer([task])

    node, found = node_with(tmp_path, read, 4)
    studies += found
    try:
        assert take_up(node) == 4
        assert states(node) == [
            (True, ""),
            (False, "expected a film, got a note; send it again"),
            (True, ""),
            (True, ""),
        ]
        assert len(jobs(node)) == 3
    finally:
        node.stop()


def test_a_reader_that_gives_fewer_answers_than_studies_is_asked_for_the_rest(tmp_path: Path) -> None:
    calls: list[int] = []

    def short(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
        calls.append(len(tasks))
        yield from answer(tasks[:1])

    node, _ = node_with(tmp_path, short, 3)
    try:
        assert take_up(node) == 3
        assert calls == [3, 1, 1]
        assert states(node) == [(True, "")] * 3
    finally:
        node.stop()


def test_what_is_not_read_yet_stays_due_and_holds_up_nothing(tmp_path: Path) -> None:
    ready: list[str] = []

    def read(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer | None]:
        for task in tasks:
            yield next(answer([task])) if task.study in ready else None

    node, studies = node_with(tmp_path, read, 2)
    try:
        ready.append(studies[1])
        assert take_up(node) == 1
        assert states(node) == [(False, ""), (True, "")]
        assert node._answering is not None
        assert node._answering.perform(studies[0]) is None
        ready.append(studies[0])
        assert take_up(node) == 1
        assert states(node) == [(True, "")] * 2
    finally:
        node.stop()


def test_many_that_are_not_read_yet_are_asked_for_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def unread(tasks: Sequence[StudyTask]) -> Iterator[None]:
        calls.append(len(tasks))
        yield from (None for _ in tasks)

    monkeypatch.setattr(answer_module, "_FEW", 1)
    monkeypatch.setattr(answer_module, "_LOOK_S", 300.0)
    node, studies = node_with(tmp_path, unread, 2)
    try:
        assert [take_up(node) for _ in range(3)] == [0] * 3
        assert calls == [2]
        node.store.ledger.write(
            lambda tx: tx.execute("UPDATE studies SET arrivals = arrivals + 1 WHERE study = ?", (studies[0],)).rowcount
        )
        assert take_up(node) == 0
        assert calls == [2, 1]  # something new came of one
        assert node._answering is not None
        node._answering._look_at = dict.fromkeys(node._answering._look_at, 0.0)
        assert take_up(node) == 0
        assert calls == [2, 1, 2]
    finally:
        node.stop()


def test_each_rule_has_its_own_batch_and_pictures_only_where_somebody_gets_them(tmp_path: Path) -> None:
    asked: list[tuple[str, int, bool]] = []

    def read(tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
        assert len({task.rule for task in tasks}) == 1
        asked.append((tasks[0].rule.name if tasks[0].rule else "", len(tasks), tasks[0].pictures))
        yield from answer(tasks)

    remotes = {"plain": AWAY, "shown": AWAY.model_copy(update={"results": ("sr", "heat")})}
    rules = (
        NodeRule(name="plain", reader="any", to=("plain",), description_has=("1",)),
        NodeRule(name="shown", reader="any", to=("plain", "shown"), description_has=("2",)),
    )
    films = [film(tmp_path / f"{number}.dcm", number, StudyDescription=f"{number % 3}") for number in range(6)]
    with started(tmp_path / "node", read, remotes=remotes, rules=rules) as (node, own):
        for path in films:
            assert client.send_files(own, "CT1", [path]) == {}
        assert take_up(node) == 6
        assert asked == [("", 2, False), ("plain", 2, False), ("shown", 2, True)]
        assert len(jobs(node)) == 2 + 2 * 3


def test_results_that_cannot_be_kept_keep_no_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.pacs import outbox

    node, studies = node_with(tmp_path, answer, 3)
    write = outbox._write

    def refusing(path: Path, data: bytes) -> None:
        if studies[1].encode() in data:
            raise WetreadError("expected room, got a full disk; free some space")
        write(path, data)

    monkeypatch.setattr(outbox, "_write", refusing)
    try:
        assert take_up(node) == 3
        assert states(node) == [(True, ""), (False, "expected room, got a full disk; free some space"), (True, "")]
        assert len(jobs(node)) == 2
        monkeypatch.setattr(outbox, "_write", write)
        assert take_up(node) == 1
        assert states(node) == [(True, "")] * 3
    finally:
        node.stop()


def test_an_image_whose_results_cannot_be_made_leaves_those_of_the_others(tmp_path: Path) -> None:
    good = film(tmp_path / "good.dcm")
    study = str(pydicom.dcmread(good).StudyInstanceUID)
    several = film(tmp_path / "several.dcm", 2, StudyInstanceUID=study, NumberOfFrames=2)
    chosen: dict[str, Any] = {
        "remotes": {"pacs": AWAY},
        "rules": (NodeRule(name="all", reader="any", to=("pacs",)),),
    }
    with started(tmp_path / "node", answer, **chosen) as (node, own):
        assert client.send_files(own, "CT1", [several, good]) == {}
        assert take_up(node) == 1
        ((done, error),) = states(node)
        assert (done, error.split(",")[0]) == (False, "expected a radiograph of one frame")
        assert len(jobs(node)) == 1


CRASH = """
import os, sys, time
from pathlib import Path
from tests.pacs.test_answer import AWAY, LATER_S
from tests.pacs.test_node import answer
from wetread.pacs import outbox
from wetread.pacs.node import Node
from wetread.settings import NodeRule, NodeSettings
rules = (NodeRule(name="all", reader="any", to=("pacs",)),)
node = Node(NodeSettings(folder=Path(sys.argv[1]), reserve_bytes=0, remotes={"pacs": AWAY}, rules=rules), answer)
step = sys.argv[2]
if step == "second file":
    write, written = outbox._write, []
    outbox._write = lambda path, data: os._exit(9) if written else (write(path, data), written.append(path))
else:
    node.store.ledger._step = lambda name: os._exit(9) if name == step else None
node._read_due(time.time() + LATER_S)
"""


@pytest.mark.parametrize(("step", "least", "most"), [("second file", 0, 1), ("directory", 0, 0), ("indexed", 1, 3)])
def test_a_crash_in_between_loses_no_result_and_makes_none_twice(
    tmp_path: Path, step: str, least: int, most: int
) -> None:
    """Done and enqueued are one: before a commit nothing is, after it everything."""
    node, _ = node_with(tmp_path, answer, 3)
    node.stop()
    words = [sys.executable, "-c", CRASH, str(tmp_path / "node"), step]
    assert subprocess.run(words, timeout=300, check=False).returncode == 9
    again = Node(node.settings, answer)
    try:
        done = [one for one, _ in states(again)].count(True)
        assert len(jobs(again)) == done
        assert least <= done <= most
        assert take_up(again) == 3 - done
        assert states(again) == [(True, "")] * 3
        assert len(jobs(again)) == 3
        assert sorted(path.name for path in again.outbox.folder.glob("*.dcm")) == sorted(jobs(again))
        for path in again.outbox.folder.glob("*.dcm"):
            assert pydicom.dcmread(path).Modality == "SR"
        assert events(again).count("study read") == 3
    finally:
        again.stop()


def test_results_are_made_although_the_process_beside_dies(tmp_path: Path) -> None:
    node, _ = node_with(tmp_path, answer, 2)
    hands = Hands(apart=True)
    try:
        child = hands.do(os.getpid).result(120)
        assert child != os.getpid()
        assert node._answering is not None
        node._answering._hands = hands
        os.kill(child, signal.SIGKILL)
        assert take_up(node) == 2
        assert states(node) == [(True, "")] * 2
        assert hands.do(os.getpid).result(120) != child
    finally:
        hands.close()
        node.stop()


def test_results_are_made_where_no_process_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> None:
        raise PermissionError(13, "no semaphores")

    monkeypatch.setattr(hands_module, "_process", refused)
    hands = Hands(apart=True)
    try:
        assert hands.do(os.getpid).result(60) == os.getpid()
        assert "results are made in this process: PermissionError" in caplog.text
    finally:
        hands.close()


ORPHAN = """
import os, sys, time
from wetread.pacs.hands import Hands
if __name__ == "__main__":
    print(Hands(apart=True).do(os.getpid).result(), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_the_process_beside_ends_with_a_node_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    with subprocess.Popen([sys.executable, str(tmp_path / "orphan.py")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.wait(60) == -9
        end = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not Path(f"/proc/{child}").exists()


def test_a_film_has_the_same_results_alone_and_among_others(tmp_path: Path) -> None:
    """Other hours and minutes aside: the bytes of its SR, heat map, marks, picture and page."""
    drawn = [render(sample_spec(np.random.default_rng(seed), size_px=128)) for seed in (1, 2, 3)]
    films = [write_dicom(one, tmp_path / f"{number}.dcm") for number, one in enumerate(drawn)]
    remotes = {"pacs": AWAY.model_copy(update={"results": ("sr", "heat", "gsps", "sc", "pdf")})}
    rules = (NodeRule(name="all", reader=str(shared_bundle()), to=("pacs",)),)
    found = []
    for together in (True, False):
        with started(tmp_path / f"{together}", study_reader(), remotes=remotes, rules=rules) as (node, own):
            for path in films:
                assert client.send_files(own, "CT1", [path]) == {}
                if not together:
                    assert take_up(node) == 1
            assert take_up(node) == (3 if together else 0)
            found.append({path.name: _timeless(path) for path in node.outbox.folder.glob("*.dcm")})
    assert len(found[0]) >= 12
    assert found[0] == found[1]


def _timeless(path: Path) -> dict[str, str]:
    """The elements of a file without those that say when it was made."""
    data = pydicom.dcmread(path)
    timed = ("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime")
    dated = (*timed, "PresentationCreationDate", "PresentationCreationTime", "EncapsulatedDocument", "DateTime")
    texts = {str(one.tag): str(one.value) for one in data if one.keyword not in dated}
    return {tag: " ".join(word for word in text.split("\n") if "DateTime" not in word) for tag, text in texts.items()}
