"""Records that would let a page mislead cannot be built."""

from __future__ import annotations

import pytest

from tests.reporting import cardiac_examples, examples, similar_examples
from wetread.errors import WetreadError
from wetread.reporting.facts import ReadWithPictures, WorklistEntry, most_urgent, picture_type
from wetread.types import LabelReading


def test_gated_image_with_a_probability_is_refused() -> None:
    gated = examples.gated_read()
    answered = gated.read.model_copy(update={"labels": (examples.answer("pneumonia", 0.9),)})
    with pytest.raises(WetreadError, match=r"expected no probability, decision, heat map, measure.*got answers for"):
        ReadWithPictures(read=answered, film_png=gated.film_png)
    with pytest.raises(WetreadError, match="expected no probability, decision, heat map, measure"):
        WorklistEntry(title="x", href="x.html", reads=(answered,))


def test_gated_image_with_a_measure_is_refused() -> None:
    gated = examples.gated_read()
    measured = gated.read.model_copy(update={"measures": cardiac_examples.measured().read.measures})
    with pytest.raises(WetreadError, match="got measures; read the image again or drop them"):
        ReadWithPictures(read=measured, film_png=gated.film_png)


def test_gated_image_with_a_heat_map_is_refused() -> None:
    gated = examples.gated_read()
    with pytest.raises(WetreadError, match="got heat maps; read the image again or drop them"):
        ReadWithPictures(read=gated.read, film_png=gated.film_png, heatmaps={"pneumonia": gated.film_png})


def test_heat_map_of_an_unknown_label_is_refused() -> None:
    sick = examples.sick_read()
    with pytest.raises(WetreadError, match=r"expected heat maps for the labels .*got others: \['gout'\]"):
        ReadWithPictures(read=sick.read, film_png=sick.film_png, heatmaps={"gout": sick.film_png})


@pytest.mark.parametrize("data", [b"", b"<svg/>", b"GIF89a", b"\x89PNG but not quite"])
def test_only_png_and_jpeg_are_pictures(data: bytes) -> None:
    with pytest.raises(WetreadError, match=r"expected a PNG or JPEG picture, got .* bytes of another kind"):
        picture_type(data)
    with pytest.raises(WetreadError, match="expected a PNG or JPEG picture"):
        ReadWithPictures(read=examples.sick_read().read, film_png=data)


def test_picture_types() -> None:
    assert picture_type(examples.png(examples.film()[0], 16)) == "image/png"
    assert picture_type(b"\xff\xd8\xff\xe0\x00\x10JFIF") == "image/jpeg"


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "https://x.org/a", "//x.org/a", "/etc/passwd", "../up.html", ""]
)
def test_worklist_links_stay_in_their_folder(href: str) -> None:
    with pytest.raises(WetreadError, match=r"expected a path beside the worklist, got .*; write the page into"):
        WorklistEntry(title="x", href=href, reads=(examples.sick_read().read,))


def _labels(*answers: tuple[str, float]) -> tuple[LabelReading, ...]:
    return tuple(examples.answer(label, probability) for label, probability in answers)


def test_most_urgent_is_the_most_probable_positive() -> None:
    low = examples.answer("effusion", 0.44).model_copy(update={"probability": 0.2})  # positive at a low threshold
    reads = (examples.read("a", (low, *_labels(("pneumonia", 0.4)))), examples.read("b", _labels(("nodule", 0.1))))
    found = most_urgent(reads)
    assert found is not None
    assert found.label == "effusion"


def test_normal_is_no_reason_to_hurry() -> None:
    found = most_urgent((examples.read("a", _labels(("normal", 0.95), ("pneumonia", 0.05))),), ("normal",))
    assert found is not None
    assert found.label == "pneumonia"


def test_gated_study_has_no_urgency() -> None:
    assert most_urgent((examples.gated_read().read,)) is None


def test_each_similar_case_has_a_picture_or_none_and_a_gated_image_has_no_cases() -> None:
    similar = similar_examples.similar_cases()
    item = examples.sick_read()
    read = item.read.model_copy(update={"similar": similar})
    with pytest.raises(WetreadError, match="expected a picture or None for each of 5 similar cases, got 0"):
        ReadWithPictures(read=read, film_png=item.film_png)
    gated = examples.gated_read().read.model_copy(update={"similar": similar})
    with pytest.raises(WetreadError, match="measure or similar case for a gated image, got similar cases"):
        ReadWithPictures(read=gated, film_png=item.film_png, cases=(None,) * 5)
