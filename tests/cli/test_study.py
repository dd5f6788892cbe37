"""The whole way of a reader of studies: MURA in, recipe, training, evaluation, reading, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from tests.conftest import CliResult
from wetread.cli.main import run
from wetread.datasets.manifest import load_manifest
from wetread.datasets.phantom_mura import MuraPlan, make_mura
from wetread.models.bundle import find_reader, load_card
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
    assert "Driven by:" in page
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


@pytest.fixture(scope="module")
def attending(work: Path, trained: Path) -> Path:
    """The same features with another pooling: weights that differ from view to view."""
    words = ("train", work / "data", "--level", "study", *SMALL, "--pooling", "attention", "--out", work / "attending")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WETREAD_PATHS__CACHE", str(work / "cache"))
        assert run([str(word) for word in words]) == 0
    return work / "attending"


def test_the_weights_of_tiles_lie_over_the_whole_slide(cli: Cli, work: Path, attending: Path, tmp_path: Path) -> None:
    films = [sorted(one_study(work, label).glob("*.png"))[0] for label in ("negative", "positive", "negative")]
    pixels = np.full((64, 192, 3), 250, np.uint8)
    for number, film in enumerate(films):  # three bones side by side, as one scanned image
        with Pillow.open(film) as picture:
            pixels[:, 64 * number : 64 * number + 64] = np.asarray(picture.convert("RGB").resize((64, 64)))
    for label in ("normal", "tumour"):
        (tmp_path / "slides" / label).mkdir(parents=True)
        file = tmp_path / "slides" / label / f"{label}.svs"
        tifffile.imwrite(file, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    imported = cli("dataset", "import", "slides", "--tiles", 64, "--tissue", 0.1, "--out", "set")
    assert imported.exit_code == 0, imported.stderr
    tiles = next(Path("set/tiles").glob("0001-*"))
    result = cli("read", tiles, "--reader", attending, "--out", "read")
    assert result.exit_code == 0, result.stderr
    with Path("read/views.csv").open(encoding="utf-8") as table:
        weights = {row["image"]: float(row["weight"]) for row in csv.DictReader(table)}
    heaviest = max(weights, key=lambda name: weights[name])
    (name,) = (one.name for one in Path("read/heatmaps").glob("*.whole.positive.png"))
    with Pillow.open(Path("read/heatmaps") / name) as picture:
        heat = np.asarray(picture.convert("RGBA")).astype(int)
    assert heat.shape == (64, 192, 4)
    shown = {f"x{64 * k:06d}-y000000.png": heat[:, 64 * k : 64 * k + 64].sum() for k in range(3)}
    assert max(shown, key=lambda one: shown[one]) == heaviest
    assert len({int(value) for value in shown.values()}) == 2  # the negative bone is there twice
    page = next(Path("read").glob("*.html")).read_text(encoding="utf-8")
    assert "Weights over the whole image" in page


@pytest.fixture(scope="module")
def past(work: Path, trained: Path) -> Path:
    """An index of the training studies by the reader of studies itself."""
    words = ("index", "build", work / "past", work / "data", "--reader", trained, "--level", "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WETREAD_PATHS__CACHE", str(work / "cache"))
        assert run([str(word) for word in (*words, "--where", "split=train")]) == 0
    return work / "past"


def test_past_studies_stand_beside_the_answer(cli: Cli, work: Path, trained: Path, past: Path) -> None:
    folder = one_study(work, "positive")
    words = ("--reader", trained, "--index", past, "-k", 3, "--no-heatmaps")
    result = cli("read", folder, *words, "--out", "read", "--json")
    assert result.exit_code == 0, result.stderr
    similar = StudyRead.model_validate_json(result.stdout).similar
    assert similar is not None
    assert [case.rank for case in similar.cases] == [1, 2, 3]
    assert all("/train/" in case.path and case.images >= 1 for case in similar.cases)
    assert similar.vote["positive"].known == 3
    page = next(Path("read").glob("study*.html")).read_text(encoding="utf-8")
    assert "Studies like this" in page
    assert page.count('class="case-film"') == 3
    assert f"{folder.name}: 3 cases like it: positive " in cli("read", folder, *words).stdout


def test_a_study_of_the_index_is_known_by_its_images(cli: Cli, work: Path, trained: Path, past: Path) -> None:
    folder = sorted((work / "release" / "MURA-v1.1" / "train").glob("XR_WRIST/*/study1_positive"))[0]
    rows = load_manifest(work / "data").table
    patient = folder.parent.name
    assert (rows.loc[rows["path"].str.contains(f"/{patient}/"), "split"] == "train").any()
    flags = ("--reader", trained, "--index", past, "--no-heatmaps", "--json")
    own = StudyRead.model_validate_json(cli("read", folder, *flags).stdout).similar
    assert own is not None
    assert own.left_out == 1
    assert not any(f"/{patient}/" in case.path for case in own.cases)


def test_an_index_that_does_not_fit_the_reader_of_studies_is_refused(
    cli: Cli, work: Path, trained: Path, past: Path, tmp_path: Path
) -> None:
    folder = one_study(work, "positive")
    assert cli("index", "build", "images", work / "data", "--reader", trained, "--where", "split=test").exit_code == 0
    result = cli("read", folder, "--reader", trained, "--index", "images", "--out", "out")
    assert result.exit_code == 2
    assert "expected an index of studies for a reader of studies, got one of single images" in result.stderr
    result = cli("read", folder, "--reader", "chest-pneumonia", "--index", past, "--out", "out")
    assert result.exit_code == 3
    own, other = (load_card(place).sha256[:12] for place in (trained / "reader", find_reader("chest-pneumonia", [])))
    assert f"sha256 {own}" in result.stderr
    assert f"sha256 {other}" in result.stderr
    assert not Path("out").exists()


def test_a_study_larger_than_the_budget_is_read_image_by_image(
    cli: Cli, work: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve images that together need three times the memory that is allowed, and one that alone needs more."""
    with Pillow.open(sorted(one_study(work, "positive").glob("*.png"))[0]) as picture:
        (tmp_path / "study").mkdir()
        for number in range(12):
            side = 250 + number
            picture.resize((side, side)).save(tmp_path / "study" / f"image{number:02d}.png")
        picture.resize((600, 600)).save(tmp_path / "study" / "poster.png")
    monkeypatch.setenv("WETREAD_IMAGING__BUDGET_BYTES", str(1 << 20))
    result = cli("read", "study", "--reader", trained, "--no-heatmaps", "--json")
    assert result.exit_code == 1
    read = StudyRead.model_validate_json(result.stdout)
    assert len(read.views) == 12
    assert list(read.failures) == ["poster.png"]
    assert "expected an image of at most 1 MiB decoded, got 600 x 600 pixels" in read.failures["poster.png"]


def test_training_holds_as_few_images_as_it_is_told(cli: Cli, work: Path, trained: Path, tmp_path: Path) -> None:
    words = ("--level", "study", *SMALL, "--epochs", 2, "--images-held", 1)
    result = cli("train", work / "data", *words, "--out", tmp_path / "held")
    assert result.exit_code == 0, result.stderr
    assert load_card(tmp_path / "held" / "reader").training["settings"]["images_held"] == 1


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
