"""Plots: well-formed, deterministic, showing the figures of the result; nothing fetched, no date."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tests.evaluation.tables import binary_table, multiclass_table, spec_of
from wetread.evaluation.operating import choose_operating_points
from wetread.evaluation.plots import confusion_plot, learning_plot, result_plots
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationResult


@pytest.fixture(scope="module")
def result() -> EvaluationResult:
    table = binary_table()
    y = (table["target"] == "pneumonia").to_numpy(dtype=float)
    points = choose_operating_points(table["probability_pneumonia"], y, "pneumonia")
    return evaluate(table, spec_of(table, operating_points=tuple(points)))


@pytest.fixture(scope="module")
def plots(result: EvaluationResult) -> dict[str, str]:
    return result_plots(result)


def test_every_plot_is_there_and_well_formed(plots: dict[str, str]) -> None:
    assert list(plots) == [
        "confusion",
        "roc pneumonia",
        "pr pneumonia",
        "reliability pneumonia",
        "histogram pneumonia",
    ]
    for svg in plots.values():
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert "viewBox" in root.attrib
        assert "width" not in root.attrib  # scales to its column


def test_same_result_same_bytes(result: EvaluationResult, plots: dict[str, str]) -> None:
    assert result_plots(result) == plots
    for svg in plots.values():
        assert "<dc:date>" not in svg
        assert "Matplotlib v" not in svg


def test_nothing_is_fetched_or_run(plots: dict[str, str]) -> None:
    for svg in plots.values():
        assert "<script" not in svg
        for attribute in (' href="http', ' xlink:href="http', "url(http", "@import"):
            assert attribute not in svg


def test_figures_on_the_plot_are_those_of_the_result(result: EvaluationResult, plots: dict[str, str]) -> None:
    label = result.labels[0]
    area = label.metrics["auroc"]
    assert f"AUROC {area.value:.3f} ({area.low:.3f}\N{EN DASH}{area.high:.3f})" in plots["roc pneumonia"]
    for point in label.operating_points:
        assert f"{point.name} (at {point.threshold:.3g})" in plots["roc pneumonia"]
        assert point.name in plots["histogram pneumonia"]
    assert label.reliability is not None
    assert f"ECE {label.reliability.ece:.3f}" in plots["reliability pneumonia"]
    assert result.confusion is not None
    for row in result.confusion.counts:
        for count in row:
            assert f">{count}<" in plots["confusion"]


def test_names_with_markup_stay_text() -> None:
    table = multiclass_table().rename(columns={"probability_viral": "probability_<b>&viral"})
    table["target"] = table["target"].replace({"viral": "<b>&viral"})
    svg = confusion_plot(evaluate(table, spec_of(table)).confusion or pytest.fail("no matrix"))
    assert "&lt;b&gt;&amp;viral" in svg
    assert "<b>" not in svg
    ElementTree.fromstring(svg)


def test_dollar_signs_and_dashes_are_text() -> None:
    name = "a$b_c$--<!"
    table = multiclass_table().rename(columns={"probability_viral": "probability_" + name})
    table["target"] = table["target"].replace({"viral": name})
    for key, svg in result_plots(evaluate(table, spec_of(table))).items():
        texts = [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]
        assert key == "confusion" or any(key.split(" ", 1)[1] in text for text in texts), key
        assert "<!--" not in svg


def test_single_class_leaves_out_what_cannot_be_drawn() -> None:
    table = binary_table(100).assign(target="normal")
    found = result_plots(evaluate(table, spec_of(table, classes=("normal", "pneumonia"))))
    assert list(found) == ["confusion", "reliability pneumonia", "histogram pneumonia"]


def test_matplotlib_is_not_imported_until_something_is_drawn() -> None:
    code = "import sys, wetread.evaluation.plots, wetread.evaluation.protocol; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_learning_curve_is_drawn() -> None:
    series = {f"val loss fold-{k}": [(0, 0.5 + k / 10), (1, 0.4)] for k in range(7)}
    svg = learning_plot(series, "loss", "Loss")
    assert all(name in svg for name in series)
