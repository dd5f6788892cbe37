"""The whole way of a reader of studies: MURA in, recipe, training, evaluation, reading, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CliResult
from wetread.cli.main import run
from wetread.datasets.manifest import load_manifest
from wetread.datasets.phantom_mura import MuraPlan, make_mura
from wetread.models.bundle import load_card
from wetread.types import StudyRead

Cli = Callable[..., CliResult]
PLAN = MuraPlan(patients=112, size_px=64, findings=("hardware",), mildest=0.9, most=3, parts=("HUMERUS", "WRIST"))
SMALL = (
    *("--mode", "features", "--model", "tf_efficientnet_lite0", "--image-size", 64, "--epochs", 25, "--hidden", 32),
    *("--learning-rate", 3e-3, "--averaging", 0.9, "--threads", 1, "--no-tensorboard", "--body-parts", "ARM"),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mura")


@pytest.fixture(scope="module")
def trained(work: Path, repository: Path) -> Path:
    """The recipe from the release to a run folder, by the commands of the how-to."""
    make_mura(work / "release", PLAN)
    data = work / "data"
    recipe = repository / "recipes" / "mura.toml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WETREAD_PATHS__CACHE", str(work / "cache"))
        for arguments in (
            ("dataset", "import", work / "release", "--out", data),
            ("dataset", "split", data, "--train", 0.8, "--val", 0.2),
            ("train", data, "--recipe", recipe, *SMALL, "--out", work / "run"),
        ):
            assert run([str(argument) for argument in arguments]) == 0
    return work / "run"


def test_the_card_says_level_and_pooling(trained: Path) -> None:
    card = load_card(trained / "reader")
    assert card.study is not None
    assert (card.study.level, card.study.pooling, card.study.hidden) == ("study", "mean", 32)
    assert (card.task, card.labels) == ("binary", ("positive",))
    assert card.training["settings"]["level"] == "study"
    assert "report.html" in {path.name for path in trained.iterdir()}


def test_evaluation_gives_kappa_for_each_body_part_and_what_was_published(cli: Cli, work: Path, trained: Path) -> None:
    flags = ("--data", work / "data", "--level", "study", "--resamples", 200)
    result = cli("evaluate", trained, *flags, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    test = load_manifest(work / "data").table
    test = test[test["split"] == "test"]
    assert found["facts"]["level"] == "study"
    assert found["facts"]["n"] == test["study"].nunique()
    assert found["facts"]["images"] == len(test)
    study = found["study"]
    assert study["kappa"]["positive"]["value"] > 0.3  # plates on 64 px are plain to see
    assert {row["value"] for row in study["parts"]} == {"HUMERUS", "WRIST"}
    assert {row["other"].split()[0] for row in study["baselines"]} == {"mean", "max"}
    assert [row["kappa"] for row in study["published"]] == [".705", ".778", ".645"]
    assert not any("chosen on single images" in warning for warning in found["warnings"])


def test_evaluation_for_a_person_names_sources(cli: Cli, work: Path, trained: Path, tmp_path: Path) -> None:
    result = cli("evaluate", trained, "--data", work / "data", "--resamples", 200, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    for text in ("Cohen's kappa of studies", "By body_part", "HUMERUS", "arXiv 1712.06957", "DenseNet201, public code"):
        assert text in result.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))["parts"]


def test_a_run_folder_is_evaluated_without_reading_again(cli: Cli, trained: Path) -> None:
    result = cli("evaluate", trained, "--level", "study", "--resamples", 200, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["facts"]["level"] == "study"


def test_a_reader_of_studies_is_evaluated_as_it_was_trained(cli: Cli, work: Path, trained: Path) -> None:
    result = cli("evaluate", trained, "--data", work / "data", "--level", "patient")
    assert result.exit_code == 2
    assert "error: expected --level study, as " in result.stderr
    result = cli("evaluate", trained, "--data", work / "data", "--aggregation", "max")
    assert "error: expected flags that a reader of studies has, got --aggregation; leave it out" in result.stderr


def one_study(work: Path, label: str) -> Path:
    studies = sorted((work / "release" / "MURA-v1.1" / "valid").glob(f"XR_HUMERUS/*/study1_{label}"))
    return max(studies, key=lambda folder: len(list(folder.iterdir())))


def test_reading_a_folder_gives_one_answer_and_the_weight_of_each_view(cli: Cli, work: Path, trained: Path) -> None:
    folder = one_study(work, "positive")
    result = cli("read", folder, "--reader", trained, "--out", "read", "--json")
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    read = StudyRead.model_validate_json(line)
    assert len(read.views) == len(list(folder.iterdir()))
    assert sum(view.weights["positive"] for view in read.views) == pytest.approx(1)
    assert read.drove["positive"] in {view.image.name for view in read.views}
    assert read.labels[0].probability is not None
    assert all(view.evidence["positive"].status for view in read.views)
    with Path("read/views.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(read.views)
    page = next(Path("read").glob("study*.html")).read_text(encoding="utf-8")
    assert "Answer for the study" in page
    assert "Research use only" in page
    stored = StudyRead.model_validate_json(Path("read/studies.jsonl").read_text(encoding="utf-8"))
    made = [e for view in stored.views for e in view.evidence.values() if e.status == "made"]
    assert all(one.heatmap and (Path("read") / one.heatmap).is_file() for one in made)


def test_reading_several_folders_gives_a_line_for_each(cli: Cli, work: Path, trained: Path) -> None:
    folders = one_study(work, "positive"), one_study(work, "negative")
    result = cli("read", *folders, "--reader", trained, "--no-heatmaps")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("images counted") == 2
    assert "weight for positive" in result.stdout


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_read(
    cli: Cli, work: Path, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(one_study(work, "positive"), tmp_path / "study")
    (tmp_path / "study" / "image9.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    result = cli("read", tmp_path / "study", "--reader", trained, "--no-heatmaps", "--json")
    assert result.exit_code == 1
    read = StudyRead.model_validate_json(result.stdout)
    assert list(read.failures) == ["image9.png"]
    assert any("1 of" in warning and "could not be read" in warning for warning in read.warnings)


def test_a_study_without_a_readable_image_is_refused(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    result = cli("read", tmp_path / "empty", "--reader", trained, "--out", "out")
    assert result.exit_code == 3
    assert "error: expected a readable image in the study empty, got 1 that are not: " in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--level", "slide"), 2, "expected a level among image, study, patient, got 'slide'; set --level to one"),
        (("--level", "study", "--mixup", 0.3), 2, "expected flags of this task, which --mixup is not"),
        (("--pooling", "mean"), 2, "got --pooling; leave it out, or --level study"),
        (("--level", "study", "--task", "segment"), 2, "expected images for --task segment, got --level study"),
        (("--level", "study", "--model", "densenet121"), 2, "expected learned weights for densenet121 in --mode"),
        (("--level", "study", "--view-encoder", "per-view"), 3, "expected view positions for --view-encoder per-view"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    cli: Cli, work: Path, trained: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    result = cli("train", work / "data", *arguments, "--out", "new")
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert not Path("new").exists()


def test_a_data_set_without_studies_is_refused(cli: Cli, work: Path, trained: Path, tmp_path: Path) -> None:
    manifest = load_manifest(work / "data")
    manifest.with_table(manifest.table.assign(study=None)).save(tmp_path / "without")
    result = cli("train", tmp_path / "without", "--level", "study", "--out", "new")
    assert result.exit_code == 3
    assert "expected a study for each of" in result.stderr
    assert "import with a column study, or use --level patient" in result.stderr
