"""Words and geometry, worked by hand."""

from __future__ import annotations

import base64

import pytest

from tests.reporting import examples
from wetread.errors import WetreadError
from wetread.reporting import words


def test_ruler_is_the_longest_that_fits() -> None:
    bar = words.scale_bar(examples.image_facts("a", 1000, spacing_mm=(0.5, 0.2)))  # 200 mm wide: 30 % is 60 mm
    assert bar is not None
    assert bar.text == "5 cm, stored spacing"
    assert bar.x1 - bar.x0 == pytest.approx(50 / 0.2)  # by the column spacing
    assert bar.x0 == 35
    assert bar.y == 965


@pytest.mark.parametrize("spacing", [None, (0.1, 0.01), (1.0, 0.0)])
def test_no_ruler_without_a_usable_spacing(spacing: tuple[float, float] | None) -> None:
    assert words.scale_bar(examples.image_facts("a", 1000, spacing_mm=spacing)) is None


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("FAIL", "fail"),
        (" fail: T1", "fail"),
        ("PASS", "pass"),
        ("WARN: T5", "warn"),
        ("not audited", "warn"),
        ("", "warn"),
    ],
)
def test_verdicts(verdict: str, kind: str) -> None:
    assert words.verdict_class(verdict) == kind
    assert words.is_failed(verdict) is (kind == "fail")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("auroc", "AUROC"),
        ("balanced_accuracy", "Balanced accuracy"),
        ("macro_auprc", "Macro AUPRC"),
        ("ppv_at_prevalence", "PPV at stated prevalence"),
        ("dice", "Dice"),
        ("iou lung_left", "IoU left lung"),
        ("hd95 heart (mm)", "HD95 heart (mm)"),
        ("average_distance aortic_arch (px)", "Average distance aortic arch (px)"),
    ],
)
def test_metric_names(key: str, name: str) -> None:
    assert words.metric_name(key) == name


def test_plot_titles() -> None:
    assert words.plot_title("roc pleural effusion") == "ROC curve: pleural effusion"
    assert words.plot_title("confusion") == "Confusion matrix"
    assert words.plot_title("anything else") == "anything else"


def test_two_labels_have_a_card_each_and_of_more_only_what_stands_out() -> None:
    told = [examples.answer(name, p) for name, p in (("a", 0.9), ("b", 0.1), ("c", 0.2))]
    assert words.split_answers(told[:2]) == words.SplitAnswers(told[:2], [])
    assert words.split_answers(told) == words.SplitAnswers(told[:1], told[1:])
    quiet = words.by_urgency([*told[1:], examples.answer("d", 0.3)])
    assert words.split_answers(quiet) == words.SplitAnswers(quiet[:1], quiet[1:])  # the most probable stays large


def test_withheld_answers_are_never_gathered_with_the_negatives() -> None:
    withheld = examples.answer("w", 0.4).model_copy(update={"decision": "withheld", "probability": None})
    told = [examples.answer("a", 0.9), examples.answer("b", 0.1), withheld]
    assert withheld in words.split_answers(told).leading


def test_absent_facts_are_not_told() -> None:
    facts = examples.image_facts("film.png", modality=None, body_part=None, view=None, patient=None, format="PNG")
    assert words.stage_facts(facts) == "PNG"
    assert words.film_words(facts) == "Film film.png"
    assert dict(words.image_facts(facts))["Patient"] is None
    assert words.film_words(examples.image_facts("a.dcm")) == "Film a.dcm (CR, CHEST, AP)"


def test_unequal_spacing_names_its_order() -> None:
    assert dict(words.image_facts(examples.image_facts("a", spacing_mm=(0.5, 0.2))))["Spacing"] == (
        "0.5 × 0.2 mm (row × column)"
    )


def test_pictures_become_data() -> None:
    data = examples.png(examples.film()[0], 16)
    assert base64.b64decode(words.data_uri(data).removeprefix("data:image/png;base64,")) == data
    with pytest.raises(WetreadError, match="expected a PNG or JPEG picture"):
        words.data_uri(b"<svg onload=alert(1)>")
    svg = base64.b64decode(words.svg_uri("<svg><g/></svg>").partition(",")[2]).decode()
    assert svg == '<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>'  # else a browser draws nothing


def test_code_is_set_as_code_and_nothing_else_gets_through() -> None:
    assert words.with_code("run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
    assert words.with_code("one ` alone <b>") == "one ` alone &lt;b&gt;"
