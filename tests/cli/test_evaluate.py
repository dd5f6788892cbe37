"""``wetread evaluate`` from a table, a run folder and a reader: output, files, refusals."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner, Result

from tests.evaluation.tables import binary_table, multilabel_table
from wetread.cli import evaluate as verb
from wetread.errors import DatasetRefused, SplitRefused, UsageError, WetreadError

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(verb.command)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--resamples", "200"])

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    binary_table().to_parquet(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def refused(result: Result, error: type[WetreadError]) -> str:
    assert isinstance(result.exception, error), result.output
    return str(result.exception)


def test_table_on_stdout_and_warnings_on_stderr(invoke: Invoke, table: Path) -> None:
    result = invoke(table, "--by", "view", "--prevalence", "0.1")
    assert result.exit_code == 0, result.output
    assert "300 images of 150 patients" in result.stdout
    for word in ("auroc", "fixed 0.5", "ppv_at_prevalence", "not assessable"):
        assert word in result.stdout
    assert "0.5 was used" in result.stderr
    assert "0.5 was used" not in result.stdout


def test_json_is_the_record(invoke: Invoke, table: Path) -> None:
    from wetread.evaluation.result import EvaluationResult

    found = EvaluationResult.model_validate_json(invoke(table, "--json", "--seed", 3).stdout)
    assert found.facts.n == 300
    assert found.provenance["seed"] == "3"


def test_csv_with_leading_zeros_keeps_its_names(invoke: Invoke, tmp_path: Path) -> None:
    data = binary_table()
    data["patient"] = [f"{k // 2:05d}" for k in range(len(data))]
    data.to_csv(tmp_path / "a.csv", index=False)
    found = json.loads(invoke(tmp_path / "a.csv", "--json").stdout)
    assert found["facts"]["patients"] == 150


def test_level_and_multilabel(invoke: Invoke, table: Path, tmp_path: Path) -> None:
    assert json.loads(invoke(table, "--level", "study", "--json").stdout)["facts"]["n"] == 150
    multilabel_table().to_parquet(tmp_path / "m.parquet")
    result = invoke(tmp_path / "m.parquet")
    assert "macro_auroc" in result.stdout


def test_comparison(invoke: Invoke, table: Path, tmp_path: Path) -> None:
    binary_table(noise=5.0).to_parquet(tmp_path / "b.parquet")
    result = invoke(table, "--compare", tmp_path / "b.parquet")
    assert "A better" in result.stdout
    found = json.loads(invoke(table, "--compare", tmp_path / "b.parquet", "--json").stdout)
    assert found["comparison"]["rows"][0]["verdict"] == "A better"


def test_out_writes_a_report_that_stands_alone(invoke: Invoke, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    result = invoke(table, "--out", out, "--by", "sex", "--compare", table)
    assert result.exit_code == 0, result.exception
    names = sorted(path.name for path in out.iterdir())
    assert names == ["comparison.json", "predictions.parquet", "report.html", "results.json"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") >= 4
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["facts"]["n"] == 300
    pd.testing.assert_frame_equal(pd.read_parquet(out / "predictions.parquet"), binary_table())
    assert "which exists" in refused(invoke(table, "--out", out), UsageError)


def card(**changes: Any) -> types.SimpleNamespace:
    from wetread.evaluation.operating import choose_operating_points

    points = choose_operating_points([0.1, 0.4, 0.6, 0.9], [0, 1, 0, 1], "pneumonia")
    facts: dict[str, Any] = {
        "name": "toy",
        "version": "1",
        "sha256": "0" * 64,
        "task": "binary",
        "classes": ("normal", "pneumonia"),
        "operating_points": tuple(points),
        "default_operating_point": "specificity=0.95",
        "audit_verdict": "not audited",
        "data": types.SimpleNamespace(name="toy set"),
    }
    return types.SimpleNamespace(**(facts | changes))


@pytest.fixture
def with_card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(**changes: Any) -> None:
        monkeypatch.setattr("wetread.models.bundle.find_reader", lambda name, shelves=(): Path(name))
        monkeypatch.setattr("wetread.models.bundle.load_card", lambda folder: card(**changes))

    return install


def test_run_folder_uses_its_readers_thresholds_default_first(
    invoke: Invoke, tmp_path: Path, with_card: Callable[..., None]
) -> None:
    with_card()
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "card.json").write_text("{}")
    binary_table().to_parquet(tmp_path / "predictions.parquet")
    found = json.loads(invoke(tmp_path, "--json").stdout)
    names = [point["name"] for point in found["labels"][0]["operating_points"]]
    assert names == ["specificity=0.95", "youden", "sensitivity=0.95"]
    assert found["facts"]["reader"] == "toy 1"
    assert found["provenance"]["reader_sha256"] == "0" * 64


def test_labels_of_another_reader_are_refused(invoke: Invoke, table: Path, with_card: Callable[..., None]) -> None:
    with_card(classes=("normal", "covid"), operating_points=())
    message = refused(invoke(table, "--reader", "toy"), DatasetRefused)
    assert "a table without probability_covid" in message


def manifest_folder(folder: Path, patients: list[str]) -> Path:
    from wetread.datasets.manifest import DatasetMeta, Manifest

    table = pd.DataFrame(
        {
            "path": [f"{k}.png" for k in range(4)],
            "patient": patients,
            "label": ["normal", "pneumonia"] * 2,
            "split": ["train", "train", "test", "test"],
        }
    )
    meta = DatasetMeta(name="other set", task="binary", classes=("normal", "pneumonia"))
    Manifest(table, meta, folder).save(folder)
    return folder


def test_reader_on_a_manifest(
    invoke: Invoke, tmp_path: Path, with_card: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def predict(reader: str, manifest: Any, split: str) -> pd.DataFrame:
        asked.append((reader, manifest.meta.name, split))
        return binary_table()

    with_card()
    monkeypatch.setattr(verb, "predict", predict)
    folder = manifest_folder(tmp_path / "data", ["a", "b", "c", "d"])
    found = json.loads(invoke("toy", "--data", folder, "--json").stdout)
    assert asked == [("toy", "other set", "test")]
    assert found["facts"]["split"] == "test"
    assert "no patient, study or image of other set is in two splits" in found["facts"]["leak"]
    assert "trained on toy set; whether it holds the same patients is not known" in found["facts"]["leak"]
    leaking = manifest_folder(tmp_path / "leak", ["a", "b", "b", "d"])
    assert "1 patients in more than one" in refused(invoke("toy", "--data", leaking), SplitRefused)
    assert len(asked) == 1  # refused before reading, not after


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["no-such-reader"], UsageError, "to use a reader, add --data DATASET"),
        (["missing.parquet"], DatasetRefused, "no file missing.parquet"),
        (["{table}", "--prevalence", "often"], UsageError, "a prevalence such as 0.1 or LABEL=0.1, got 'often'"),
        (["{table}", "--prevalence", "2"], UsageError, "got pneumonia=2"),
        (["{table}", "--prevalence", "covid=0.1"], UsageError, "got covid=0.1"),
        (["{table}", "--level", "film"], UsageError, "--level image or study or patient, got 'film'"),
        (["{table}", "--by", "colour"], DatasetRefused, "a table without colour"),
        (["{table}", "--split", "val"], DatasetRefused, "images of the split val"),
        (["{folder}"], DatasetRefused, "predictions.parquet in a run folder"),
    ],
)
def test_bad_requests(
    invoke: Invoke, table: Path, arguments: list[str], error: type[WetreadError], message: str
) -> None:
    (table.parent / "empty").mkdir()
    texts = [text.format(table=table, folder=table.parent / "empty") for text in arguments]
    assert message in refused(invoke(*texts), error)


def test_unreadable_tables(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    assert "a readable parquet table" in refused(invoke(tmp_path / "broken.parquet"), DatasetRefused)
    (tmp_path / "table.xlsx").write_bytes(b"")
    assert "a .parquet or .csv table" in refused(invoke(tmp_path / "table.xlsx"), DatasetRefused)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "columns probability_<label>" in refused(invoke(tmp_path / "other.csv"), DatasetRefused)
    (tmp_path / "coded.csv").write_text("image,probability_x,target\na,0.5,1\nb,0.1,0\n")
    assert "write class names in target" in refused(invoke(tmp_path / "coded.csv"), DatasetRefused)
