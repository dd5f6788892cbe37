"""Pages of studies and of past cases: what stands on them, and what does not."""

from __future__ import annotations

from tests.reporting import study_examples
from tests.reporting.markup import Page
from tests.reporting.test_html import html_of


def test_similar_cases_stand_below_the_film_with_vote_and_contradiction() -> None:
    page = Page(html_of("read-similar"))
    words = page.with_class("similar-strip")[0].words
    assert "Cases like this disagree with the classifier The classifier calls pneumonia negative; 3 of the 4" in words
    for text in (
        "distance 0.062",
        "train/ward/PHANTOM-0043.png",
        "label unknown",
        "pneumonia 3 of 4 71",
        "chest-cases",
    ):
        assert text in words
    assert "no picture: the file is not where it was" in words
    assert "The patient of IM0001.dcm is in chest-cases: 2 rows left out." in words
    assert "secret-patient" not in html_of("read-similar")
    assert not Page(html_of("read")).with_class("similar-strip")


def test_a_study_says_its_answer_and_what_each_image_had_to_do_with_it() -> None:
    page = Page(html_of("study"))
    words = page.all("main")[0].words.replace("\u202f", " ")
    assert "Images that counted 5 of 7" in words
    assert "Driven by: IM0001.dcm, 62.0 % of the answer." in words
    views = [view.words.replace("\u202f", " ") for view in page.with_class("view")]
    assert views[1:] == [
        "IM0001.dcm weight 62.0 % alone 48 %",
        "IM0002.dcm weight 21.0 % alone 21 %",
        "IM0003.dcm weight 10.0 % alone 11 %",
        "IM0005.dcm weight 5.0 % alone 4 %",
    ]
    assert "Weights over the whole image" in words
    assert "IM0006.dcm 2.0 % 3 %" in words  # no heat map, yet in the table
    assert "empty.dcm expected an image, got 0 bytes" in words
    assert "Studies like this disagree with the classifier" in words


def test_an_evaluation_of_studies_has_kappa_body_parts_baselines_and_sources() -> None:
    page = Page(html_of("evaluation-study"))
    found = study_examples.study_evaluation()
    assert [row.verdict for row in found.baselines] == ["better", "no difference shown"]
    words = page.all("main")[0].words.replace("\u202f", " ")
    for text in ("By body part", "ELBOW", "WRIST", "mean of image scores", "better", "no difference shown"):
        assert text in words
    assert "One answer per study, by a reader of studies." in words
    assert "DenseNet169, single model .705 207 hidden test studies" in words
    assert "Agreement with the label" not in html_of("evaluation")
