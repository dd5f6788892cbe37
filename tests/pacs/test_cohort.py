"""A cohort pulled from Orthanc and from an archive that fails: order, pace, going on, and nobody's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.conftest import CliResult
from tests.pacs.node_support import film
from tests.pacs.orthanc_support import PROOF, Orthanc, orthanc
from wetread.deid.batch import open_run
from wetread.deid.key import Key
from wetread.deid.process import Setup
from wetread.errors import PeerUnreachable, UsageError
from wetread.pacs import client, cohort
from wetread.pacs.cohort import LEDGER, Archive, find_cohort, pull_cohort
from wetread.settings import NodeRemote

Cli = Callable[..., CliResult]
SETUP = Setup(Key(b"c" * 32))
STUDIES = ["1.2.826.0.1.99.61", "1.2.826.0.1.99.62", "1.2.826.0.1.99.63"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with three studies of two patients."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "films").mkdir()
    for number, study in enumerate(STUDIES):
        changes = {"PatientID": f"CANARY{number // 2}", "StudyInstanceUID": study, "StudyDate": f"2026010{number + 1}"}
        film(folder / "films" / f"{number}.dcm", number, **changes)
    with orthanc(folder / "orthanc", "NOBODY", 1) as running:
        remote = NodeRemote(title=running.title, host="127.0.0.1", port=running.port)
        assert client.send_files(remote, "WETREAD", sorted((folder / "films").iterdir())) == {}
        yield running


@pytest.mark.parametrize("by_web", [False, True])
def test_the_command_pulls_cleans_and_imports(
    cli: Cli, archive: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_web: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proof").write_text(PROOF)
    (tmp_path / "proof").chmod(0o600)
    how = f'web = "{archive.web}"\nauthorization = "proof"\n' if by_web else ""
    Path("wetread.toml").write_text(
        f'[node.remotes.near]\ntitle = "{archive.title}"\nhost = "127.0.0.1"\nport = {archive.port}\n{how}'
    )
    words = ("dataset", "import", "--pacs", "near", "--query", "StudyDate=20260101-20260102", "--out", "cohort")
    done = cli(*words, "--per-minute", 6000)
    assert done.exit_code == 0, done.stderr
    assert "2 studies pulled, 0 were there, 2 objects came" in done.stderr
    assert "2 images, layout dicom" in done.stdout
    files = sorted(Path("cohort", "images").rglob("*.dcm"))
    found = [dcmread(path) for path in files]
    assert len({str(data.PatientID) for data in found}) == 1
    assert {str(data.StudyInstanceUID) for data in found}.isdisjoint(STUDIES)
    table = Path("cohort", "manifest.parquet").read_bytes()
    others = [path.read_bytes() for path in Path("cohort").rglob("*") if path.suffix in (".jsonl", ".json", ".html")]
    assert not [data for data in (table, *others) if b"CANARY" in data]
    assert "CANARY" not in done.stdout + done.stderr
    again = cli(*words, "--per-minute", 6000)
    assert again.exit_code == 3
    assert "expected a new dataset folder, got cohort with a manifest in it" in again.stderr
    more = cli(*words[:5], "StudyDate=20260101-20260103", *words[6:], "--per-minute", 6000, "--overwrite")
    assert more.exit_code == 0, more.stderr
    assert "1 studies pulled, 2 were there, 1 objects came" in more.stderr
    assert "3 images" in more.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pacs", "A@localhost:1"), "expected at least one --query, got none; name the cohort"),
        (("films", "--pacs", "A@localhost:1"), "expected a SOURCE or --pacs, got both; leave one out"),
        ((), "expected a SOURCE or --pacs, got neither; name a folder or table, or an archive"),
        (("--pacs", "nowhere", "--query", "PatientID=1"), "expected a remote, got 'nowhere'"),
    ],
)
def test_mistakes_are_named_before_anybody_is_called(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("dataset", "import", *words)
    assert result.exit_code == 2
    assert message in result.stderr


class _Away:
    """Stands for the network alone: fails as often as it was told, and notes the waiting."""

    def __init__(self, failures: int, source: Path) -> None:
        self.failures, self.source = failures, source
        self.asked: list[str] = []
        self.waited: list[float] = []

    def get_study(self, remote: NodeRemote, title: str, study: str, folder: Path) -> list[Path]:
        self.asked.append(study)
        if len(self.asked) <= self.failures:
            raise PeerUnreachable("expected an answer from A at b:1, got none; try later")
        copy = folder / "a.dcm"
        film(copy, len(self.asked), StudyInstanceUID=study)
        return [copy]


def _pull(away: _Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cohort.Pulled:
    monkeypatch.setattr(client, "get_study", away.get_study)
    archive = Archive(NodeRemote(title="A", host="b", port=1), "WETREAD", per_minute=60, wait=away.waited.append)
    with open_run(SETUP, tmp_path / "out", quarantine=tmp_path / "q") as run:
        pulled = pull_cohort(archive, STUDIES, run)
        assert not list(run.scratch.iterdir())  # what came is deleted
    return pulled


def test_a_study_that_does_not_come_is_left_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = _Away(3, tmp_path)
    pulled = _pull(away, tmp_path, monkeypatch)
    assert (pulled.done, len(pulled.failed)) == (2, 1)
    assert away.asked == [STUDIES[0]] * 3 + STUDIES[1:]
    ledger = (tmp_path / "out" / LEDGER).read_text()
    assert len(ledger.splitlines()) == 2
    assert not any(study in ledger for study in STUDIES)
    with (tmp_path / "out" / LEDGER).open("a") as stream:
        stream.write('{"study": "half')
    again = _Away(0, tmp_path)
    pulled = _pull(again, tmp_path, monkeypatch)
    assert again.asked == [STUDIES[0]]
    assert (pulled.done, pulled.already, pulled.failed) == (1, 2, [])


def test_the_pace_is_kept_and_a_busy_archive_is_given_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = _Away(2, tmp_path)
    _pull(away, tmp_path, monkeypatch)
    assert away.waited[0] == 0
    assert away.waited[1:3] == [2.0, 4.0]  # before the second and the third try
    assert len(away.waited) == 5
    assert all(0 <= pause <= 1.0 for pause in away.waited[3:])  # 60 a minute


def test_the_whole_archive_is_never_asked_for() -> None:
    with pytest.raises(UsageError, match="expected at least one --query, got none"):
        find_cohort(Archive(NodeRemote(title="A", host="b", port=1), "WETREAD"), {}, 10)
