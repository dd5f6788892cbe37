"""``train --task segment`` and ``evaluate`` of a segmenter: runs, reports, JSON, refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import CliResult
from tests.reading.support import shared_bundle
from tests.reporting.markup import Page
from tests.training.support import organ_films
from wetread.cli.evaluate_segment import odd
from wetread.cli.segment_report import worst_cases
from wetread.datasets.manifest import load_manifest
from wetread.models.bundle import load_any_card, load_segmenter
from wetread.models.card import SegmenterCard
from wetread.reporting.facts import OverlapReport
from wetread.training.config import SegmentConfig, load_recipe
from wetread.training.segment_scores import score_images

Cli = Callable[..., CliResult]
TINY = (
    *("--task", "segment", "--image-size", "32", "--epochs", "1", "--batch-size", "4", "--augment", "none"),
    *("--threads", "1", "--no-tensorboard"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("organs") / "set"
    organ_films(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def pictures(page: Page) -> list[str]:
    return [one.words for one in page.all("figcaption") if ": Dice " in one.words]


def test_a_run_gives_json_a_report_and_a_segmenter(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    organs = ("--organs", "lungs", "--organs", "heart")
    result = cli("train", dataset, *TINY, *organs, "--limits", "Phantoms <only>.", "--name", "first", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    run = tmp_path / "runs" / "train" / "first"
    assert Path(facts["run"]).resolve() == run
    card = load_any_card(run / "reader")
    assert isinstance(card, SegmenterCard)
    assert facts["sha256"] == card.sha256
    assert card.organs == ("lungs", "heart")
    assert [row["name"] for row in facts["metrics"]] == [row.name for row in card.metrics]
    assert "training: 16 of 16 images" in result.stderr.lower()
    assert (run / "metrics.csv").read_text().splitlines()[0] == "network,epoch,step,train_loss,val_loss,val_dice"
    html = (run / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.problems == []
    assert "Training run first" in html
    assert "Phantoms <only>." in page.one("main").words
    assert len(pictures(page)) == 6
    assert f"wetread segment IMAGES --segmenter {facts['segmenter']}" in page.one("main").words
    assert facts["report"].endswith("report.html")
    again = cli("train", dataset, *TINY, "--out", run, "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["sha256"] == card.sha256
    other = cli("train", dataset, "--task", "segment", "--encoder", "resnet18", "--out", run, "--resume")
    assert other.exit_code == 2
    assert "expected the settings of the run, got another encoder; leave --encoder out or start a new" in other.stderr


def test_a_recipe_and_flags_make_a_run_for_a_person(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "organs.toml").write_text('organs = ["heart"]\nloss = "tversky"\nepochs = 9\n')
    result = cli("train", dataset, *TINY, "--recipe", "organs.toml", "--out", "mine")
    assert result.exit_code == 0, result.stderr
    for text in ("dice heart (validation): ", "Segmenter: ", "Report: ", "Next: wetread segment YOUR_IMAGES --segmen"):
        assert text in result.stdout
    assert " of heart); 0 others of these splits left out" in result.stdout
    assert "were left out" not in (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    stored = load_recipe(tmp_path / "mine" / "config.toml", SegmentConfig)
    wanted = {"organs": ["heart"], "loss": "tversky", "epochs": 1, "encoder": "tf_efficientnet_lite0"}
    assert {key: stored[key] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--mode", "features"),
            2,
            "expected flags of this task, which --mode is not, got --mode; leave it out, or --",
        ),
        (("--no-gate",), 2, "expected flags of this task, which --gate is not, got --gate; leave it out, or --task cl"),
        (("--label-smoothing", "0.1"), 2, "which --label-smoothing is not"),
        (("--loss", "dise"), 2, "expected the name of a segmentation loss, got 'dise'; use 'dice'"),
        (("--network", "u-net"), 2, "--network"),
        (("--organs", "spleen"), 3, "expected masks of spleen, got the mask columns mask, "),
        (
            ("--image-size", "100"),
            2,
            "expected an image size that is a multiple of 32, got 100x100; use --image-size 96",
        ),
        (
            ("--recipe", "wrong.toml"),
            2,
            "expected settings of `wetread train` in wrong.toml, got 'organ'; did you mean",
        ),
        (("--exclusive", "--organs", "lungs", "--organs", "lung_left"), 3, "expected exclusive masks without a common"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    cli: Cli, dataset: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "wrong.toml").write_text('organ = "lungs"\n')
    result = cli("train", dataset, *TINY, *arguments)
    assert result.exit_code == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["wrong.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--organs", "lungs"),
            "expected flags of this task, which --organs is not, got --organs; leave it out, or --t",
        ),
        (("--exclusive",), "got --exclusive; leave it out, or --task segment"),
        (("--task", "detect"), "expected a task among classify, segment, got 'detect'; set --task to one"),
    ],
)
def test_classification_takes_no_flags_of_segmentation(
    cli: Cli, dataset: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = cli("train", dataset, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_evaluation_is_json_a_page_and_a_table(cli: Cli, dataset: Path, segmenter: Path, tmp_path: Path) -> None:
    result = cli("evaluate", segmenter, "--data", dataset, "--out", "out", "--json")
    assert result.exit_code == 0, result.stderr
    report = OverlapReport.model_validate_json(result.stdout)
    manifest = load_manifest(dataset)
    part = manifest.table[manifest.table["split"] == "test"]
    assert (report.split, report.n_images, report.n_patients) == ("test", len(part), part["patient"].nunique())
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "results.json", "scores.parquet"]
    assert OverlapReport.model_validate_json((out / "results.json").read_text()) == report
    scores = pd.read_parquet(out / "scores.parquet")
    wanted = score_images(load_segmenter(segmenter), manifest, part, look=odd)
    pd.testing.assert_frame_equal(scores, wanted)
    assert report.n_flagged == (wanted["flags"] != "").sum() > 0
    for organ in ("lungs", "heart"):
        mean = next(row.estimate for row in report.metrics if row.name == f"dice {organ}")
        assert mean.value == pytest.approx(wanted.loc[wanted["organ"] == organ, "dice"].mean())
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.problems == []
    assert page.one("h1").words == "organs on phantoms-0"
    assert all(address.startswith(("data:image/", "#")) for _, _, address in page.loads)
    lowest = wanted.sort_values("dice").iloc[0]
    assert pictures(page)[0].endswith(f"{lowest['organ']}: Dice {lowest['dice']:.3f}")
    again = cli("evaluate", segmenter, "--data", dataset, "--out", "out")
    assert again.exit_code == 2
    assert "expected a new folder, got out, which exists" in again.stderr


def test_an_evaluation_for_a_person(cli: Cli, dataset: Path, segmenter: Path) -> None:
    result = cli("evaluate", segmenter, "--data", dataset, "--split", "val", "--task", "segment", "--out", "out")
    assert result.exit_code == 0, result.stderr
    for text in (
        "dice lungs (val): ",
        "hd95 heart (px) (val): ",
        " masks are odd; they are counted",
        "Report: out/report",
    ):
        assert text in result.stdout


def test_a_data_set_without_a_split_is_taken_whole(cli: Cli, dataset: Path, segmenter: Path, tmp_path: Path) -> None:
    """Patients are not known here either: each image then counts as one."""
    manifest = load_manifest(dataset)
    plain = manifest.table.head(3).assign(split=None, patient=None)
    shutil.copytree(dataset, tmp_path / "plain")
    manifest.with_table(plain, split=None).save(tmp_path / "plain")
    result = cli("evaluate", segmenter, "--data", "plain", "--json")
    assert result.exit_code == 0, result.stderr
    report = OverlapReport.model_validate_json(result.stdout)
    assert (report.split, report.n_images, report.n_patients) == ("all images", 3, 3)
    missing = cli("evaluate", segmenter, "--data", "plain", "--split", "test")
    assert missing.exit_code == 3
    assert "expected images in the split 'test', got none; name another with --split" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--task", "segment"), 2, "expected a data set with masks, got none; add --data DATASET"),
        (
            ("--data", "SET", "--compare", "a.parquet"),
            2,
            "expected flags that a segmenter has, got --compare; leave it",
        ),
        (("--data", "SET", "--by", "sex"), 2, "expected flags that a segmenter has, got --by; leave it out"),
        (("--data", "SET", "--prevalence", "0.1"), 2, "got --prevalence; leave it out"),
        (("--data", "SET", "--task", "classify"), 3, "expected a reader in organs, got the segmenter organs; use `wet"),
        (("--data", "SET", "--task", "detect"), 2, "expected a task among classify, segment, got 'detect'"),
    ],
)
def test_a_wrong_evaluation_is_one_line(
    cli: Cli, dataset: Path, segmenter: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    words = [dataset if word == "SET" else word for word in arguments]
    result = cli("evaluate", segmenter, *words)
    assert result.exit_code == code, result.stderr
    assert re.search(re.escape(message), result.stderr)


def test_a_reader_is_not_evaluated_as_a_segmenter(cli: Cli, dataset: Path) -> None:
    result = cli("evaluate", shared_bundle(), "--data", dataset, "--task", "segment")
    assert result.exit_code == 3
    assert "expected a segmenter, got the reader small; use `wetread read`, or train one" in result.stderr


def test_a_split_that_leaks_is_not_evaluated(cli: Cli, dataset: Path, segmenter: Path, tmp_path: Path) -> None:
    manifest = load_manifest(dataset)
    table = manifest.table.copy()
    table.loc[table.index[table["split"] == "train"][0], "patient"] = table.query("split == 'test'")["patient"].iloc[0]
    shutil.copytree(dataset, tmp_path / "leak")
    manifest.with_table(table).save(tmp_path / "leak")
    result = cli("evaluate", segmenter, "--data", "leak")
    assert result.exit_code == 3
    assert "expected every patient, study and image in one split" in result.stderr


def test_where_nothing_is_found_and_nothing_annotated_there_is_no_picture(dataset: Path, segmenter: Path) -> None:
    manifest = load_manifest(dataset)
    path = manifest.table["path"].iloc[0]
    scores = pd.DataFrame({"path": [path, path], "organ": ["lungs", "heart"], "dice": [None, None]})
    assert worst_cases([load_segmenter(segmenter)], manifest, scores) == ()
    scores["dice"] = [None, 0.25]
    ((caption, picture),) = worst_cases([load_segmenter(segmenter)], manifest, scores)
    assert caption == f"{path}, heart: Dice 0.250"
    assert picture.startswith(b"\xff\xd8")
