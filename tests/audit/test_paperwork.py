"""T16: facts fill their items, authors answer by number, nothing is invented, and a bare card fails."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from wetread.audit.paperwork import ITEMS, load_answers, paperwork, paperwork_line
from wetread.audit.thresholds import Thresholds
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import UsageError
from wetread.models.bundle import find_reader, load_card


def manifest(folder: Path) -> Manifest:
    table = pd.DataFrame({
        "path": ["a.png", "b.png"], "label": ["NORMAL", "PNEUMONIA"], "sex": ["F", "M"], "age": [3, 5],
        "split": ["train", "test"], "view": ["AP", "AP"],
    })  # fmt: skip
    return Manifest(table, DatasetMeta(name="films", classes=("NORMAL", "PNEUMONIA")), folder)


def test_items_are_filled_from_records_alone(tmp_path: Path) -> None:
    card = load_card(find_reader("chest-pneumonia"))
    found = paperwork(card, manifest(tmp_path), {"T5": "Markers do not move it."})
    text = {item.number: item for item in found.items}
    assert len(found.items) == len(ITEMS) == 44
    assert text[22].text.startswith("tf_efficientnet_lite0, input 160x160")
    assert text[30].text == "T5: Markers do not move it."
    assert text[36].text == "test: 1 images, median age 5, 0 female; train: 1 images, median age 3, 1 female"
    assert text[44].status == "missing"
    assert text[44].text == "the author must fill this"
    line = paperwork_line(found, Thresholds())
    assert line.answer == "WARN"
    assert "--answers" in line.cure


def test_the_author_completes_it_and_reasons_for_not_applicable_count(tmp_path: Path) -> None:
    card = load_card(find_reader("chest-pneumonia"))
    file = tmp_path / "answers.toml"
    file.write_text("".join(f'item-{n} = "N/A: no study"\n' for n in ITEMS if n != 44) + 'item-44 = "none"\n', "utf-8")
    found = paperwork(card, manifest(tmp_path), {}, load_answers(file))
    assert {item.status for item in found.items} == {"not applicable", "author"}
    assert paperwork_line(found, Thresholds()).answer == "PASS"


def test_a_card_without_limits_fails(tmp_path: Path) -> None:
    card = load_card(find_reader("chest-pneumonia")).model_copy(update={"limits": ()})
    line = paperwork_line(paperwork(card, manifest(tmp_path), {}), Thresholds())
    assert line.answer == "FAIL"
    assert line.sentence == "The card says nothing of limits."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('item-45 = "x"', r"expected item-1 to item-44 with a text in answers\.toml, got 'item-45'"),
        ("item-1 = ", r"expected answers in TOML at answers\.toml, got TOMLDecodeError"),
    ],
)
def test_wrong_answers_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_answers(file)
