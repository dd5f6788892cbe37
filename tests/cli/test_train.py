"""``wetread train``: flags that are the settings, recipes, JSON, refusals, and a start without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CliResult
from tests.training.support import KINDS, relabelled
from wetread.cli.main import load_verb
from wetread.cli.train_report import learning_curves
from wetread.datasets.phantoms import DatasetPlan, make_dataset
from wetread.models.bundle import load_card
from wetread.training.config import SegmentConfig, TrainingConfig, load_recipe
from wetread.training.run import RunFolder
from wetread.training.study_config import StudyConfig

Cli = Callable[..., CliResult]
TINY = (
    *("--mode", "finetune", "--model", "cnn", "--image-size", "32", "--epochs", "1", "--head-epochs", "0"),
    *("--batch-size", "16", "--threads", "1", "--no-tensorboard"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    plan = DatasetPlan(
        64, task="multilabel", kinds=KINDS, prevalence=0.6, format="png", size_px=64, masks=False, fractions={}
    )
    manifest = relabelled(make_dataset(folder / "set", plan), "binary")
    manifest.save(folder / "set")
    return folder / "set"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def options() -> dict[str, Any]:
    return {parameter.name: parameter for parameter in load_verb("train").params}


def test_every_setting_has_a_flag_and_every_flag_is_a_setting() -> None:
    own = {"dataset", "task", "level", "recipe", "out", "resume", "as_json", "help"}
    found = options()
    # what several have reads as classification has it
    fields = SegmentConfig.model_fields | StudyConfig.model_fields | TrainingConfig.model_fields
    fields.pop("level")
    assert set(found) - own == set(fields)
    for name, field in fields.items():
        assert "--" + name.replace("_", "-") in found[name].opts
        assert field.description is not None
        assert field.description[1:] in found[name].help
        default = field.default
        if default not in (None, (), ""):
            shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            assert f"[default: {shown}]" in found[name].help
    assert found["gate"].secondary_opts == ["--no-gate"]


def test_help_shows_an_example_and_every_flag(cli: Cli) -> None:
    result = cli("train", "--help")
    assert result.exit_code == 0
    assert "Example: wetread train datasets/kermany --mode finetune --epochs 8 --seed 1" in result.stdout
    for name in TrainingConfig.model_fields:
        assert "--" + name.replace("_", "-") in result.stdout


def test_help_imports_nothing_heavy() -> None:
    """In a process of its own: torch alone costs a second and more."""
    code = (
        "import sys; from wetread.cli.main import run; run(['train', '--help']);"
        "heavy = {'torch', 'timm', 'lightning', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'mlflow'};"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_a_run_gives_json_a_report_and_a_reader(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    result = cli("train", dataset, *TINY, "--name", "first", "--operating-points", "specificity=0.9", "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    run = tmp_path / "runs" / "train" / "first"
    assert Path(facts["run"]).resolve() == run
    card = load_card(run / "reader")
    assert facts["sha256"] == card.sha256
    assert [point["name"] for point in facts["operating_points"]] == ["specificity=0.9"]
    assert facts["metrics"][0]["name"] == "AUROC ill"
    assert "training: 32 of 32 images" in result.stderr.lower()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Training run first" in page
    assert (run / "metrics.csv").read_text().splitlines()[0] == "network,epoch,step,train_loss,val_loss,val_auroc"
    assert list((run / "plots").glob("*.svg"))
    assert "report.html" in facts["report"]


def test_a_run_for_a_person_says_what_comes_next(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    flags = ("--mode", "features", "--model", "logistic", "--inputs", "pixels", "--image-size", "32")
    result = cli("train", dataset, *flags, "--out", tmp_path / "mine")
    assert result.exit_code == 0, result.stderr
    for text in ("AUROC ill (validation)", "operating point", "youden", "Report: ", "Next: wetread read YOUR_IMAGES"):
        assert text in result.stdout
    assert (tmp_path / "mine" / "report.html").is_file()


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(
        'model = "svm"\ninputs = "pixels"\nimage_size = 24\nseed = 5\ngate = true\nlimits = ["from recipe"]\n'
    )
    result = cli(
        *("train", dataset, "--recipe", "recipe.toml", "--seed", 7, "--no-gate", "--limits", "a", "--limits", "b"),
        *("--out", "run", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    stored = load_recipe(tmp_path / "run" / "config.toml")
    wanted = {"model": "svm", "image_size": 24, "seed": 7, "gate": False, "limits": ["a", "b"], "epochs": 8}
    assert {key: stored[key] for key in wanted} == wanted
    assert load_card(tmp_path / "run" / "reader").limits == ("a", "b")


def test_settings_of_the_environment_reach_the_run(
    cli: Cli, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WETREAD_PATHS__RUNS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("WETREAD_RUNTIME__THREADS", "1")
    result = cli("train", dataset, "--model", "knn", "--inputs", "pixels", "--image-size", 32, "--json")
    assert result.exit_code == 0, result.stderr
    run = tmp_path / "elsewhere" / "train" / "knn-features-seed0"
    assert load_recipe(run / "config.toml")["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--epochs", "0"), 2, "error: expected a valid epochs, got 0; Input should be greater than or equal to 1"),
        (("--epochs", "many"), 2, "error: Invalid value for '--epochs': .* See 'wetread train --help'"),
        (("--fit", "squeeze"), 2, r"error: .*--fit.*squeeze"),
        (("--augment", "strong"), 2, "error: expected one of the recipes none, light, .*, s6, got 'strong'"),
        (("--model", "resnet81"), 2, "error: expected the name of a timm network, cnn or pixels, got 'resnet81'; try"),
        (("--name", "my run"), 2, "error: expected a valid name, got 'my run'"),
        (("--epoch", "3"), 2, r"error: No such option: --epoch .*--epochs"),
        (("--recipe", "nowhere.toml"), 2, "error: expected a TOML recipe at nowhere.toml, got FileNotFoundError"),
        (("--weights", "net.pth", "--mode", "finetune"), 3, "error: expected a .safetensors file or a folder with one"),
        (("--resume",), 2, r"error: expected a run to resume in .*, got none; start it without --resume"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    cli: Cli, dataset: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = cli("train", dataset, *arguments)
    assert result.exit_code == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert result.stdout == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_wrong_key_in_a_recipe_suggests_the_nearest(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("learning_rat = 1\n")
    result = cli("train", dataset, "--recipe", "r.toml")
    assert result.exit_code == 2
    assert "got 'learning_rat'; did you mean 'learning_rate'?" in result.stderr


def test_a_folder_without_a_manifest_is_input_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("train", tmp_path)
    assert result.exit_code == 3
    assert "import first: wetread dataset import" in result.stderr


def test_resuming_with_other_settings_is_refused(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    """The run's own settings hold, so a flag that says otherwise would be dropped in silence."""
    first = cli("train", dataset, *TINY, "--out", "run", "--json")
    assert first.exit_code == 0, first.stderr
    again = cli("train", dataset, *TINY, "--out", "run", "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["sha256"] == json.loads(first.stdout)["sha256"]
    other = cli("train", dataset, "--epochs", 3, "--out", "run", "--resume")
    assert other.exit_code == 2
    assert "expected the settings of the run, got another epochs; leave --epochs out or start a new run" in other.stderr


def test_an_interruption_is_130_and_says_how_to_go_on(cli: Cli, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from wetread.cli import train as verb

    @contextmanager
    def impatient() -> Any:
        def advance(stage: str, done: int, total: int) -> None:
            if "training" in stage and done > total // 2:
                raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(verb, "staged_progress", impatient)
    flags = [*TINY]
    flags[flags.index("--epochs") + 1] = "2"
    result = cli("train", dataset, *flags, "--out", "run")
    assert result.exit_code == 130
    assert "go on with --resume" in result.stderr


def test_the_curve_of_a_resumed_run_is_whole(tmp_path: Path) -> None:
    """Two logs of one network are one curve; two folds are two."""
    head = "epoch,step,train_loss,val_auroc,val_loss\n"
    for fold, area in (("fold-1", 0.7), ("fold-2", 0.8)):
        logs = tmp_path / fold / "logs"
        logs.mkdir(parents=True)
        (logs / "metrics-1.csv").write_text(head + f"0,2,,{area},0.6\n0,2,0.7,,\n")
        (logs / "metrics.csv").write_text(head + f"1,5,,{area + 0.1},0.5\n1,5,0.6,,\n")
    single = tmp_path / "single"
    (tmp_path / "fold-1").rename(single)
    curves = learning_curves(RunFolder(single))
    assert set(curves) == {"Loss over epochs", "Validation AUROC over epochs"}
    rows = (single / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["network", "0"]] * 2 + [["network", "1"]] * 2
    assert "network" not in curves["Validation AUROC over epochs"]
    (tmp_path / "fold-3").mkdir()
    (single / "logs").rename(tmp_path / "fold-3" / "logs")
    folded = learning_curves(RunFolder(tmp_path))
    assert "val auroc fold-2" in folded["Validation AUROC over epochs"]
    assert "val auroc fold-3" in folded["Validation AUROC over epochs"]
