"""The small card: what it demands, what it suggests, and what it makes of files with reference pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.foreign_support import save_card, write_image
from wetread.errors import BundleRefused, ImageRefused
from wetread.models.foreign_card import ForeignCard, Pairs, read_foreign_card, read_pairs


def refused(folder: Path, *references: dict[str, Any], **changes: dict[str, Any]) -> str:
    with pytest.raises(BundleRefused) as found:
        read_foreign_card(save_card(folder, *references, **changes))
    return str(found.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"top": {"clases": ["a"]}}, "expected a key of card.toml, got 'clases'; did you mean 'classes'?"),
        (
            {"input": {"normalization": "fixed"}},
            "a key of [input] of card.toml, got 'normalization'; did you mean 'norm",
        ),
        (
            {"output": {"activation": "softmax"}},
            "a key of [output] of card.toml, got 'activation'; the keys are gives,",
        ),
        ({"data": {"pictures": 3}}, "a key of [data] of card.toml, got 'pictures'; the keys are name, licence"),
        ({"input": {"fit": None}}, "got input.fit: Field required"),
        ({"input": {"height": 4}}, "got input.height: Input should be greater than or equal to 8"),
        ({"output": {"gives": "scores"}}, "got output.gives: Input should be 'logits' or 'probabilities'"),
        ({"input": {"std": None}}, "normalisation 'fixed' takes mean and std"),
        ({"input": {"normalisation": "zscore"}}, "normalisation 'zscore' takes neither mean, std nor range"),
        ({"input": {"channels": 1}}, "mean has 3 numbers for 1 channels"),
        ({"input": {"std": 0.0, "mean": 0.5}}, "std must not be 0"),
        (
            {"input": {"normalisation": "range", "range": [1.0, 1.0], "mean": None, "std": None}},
            "range needs two different numbers",
        ),
        ({"top": {"classes": ["a", "b", "c"]}}, "a binary task has two classes, the negative one first"),
        ({"top": {"classes": ["a", "a"]}}, "classes need names, each once"),
        ({"top": {"labels": ["normal"]}}, "labels of a binary task with these classes are finding"),
        ({"top": {"tolerance": 0.2}}, "got tolerance: Input should be less than or equal to 0.05"),
    ],
)
def test_a_wrong_card_is_refused_with_its_cure(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(tmp_path, **changes)


def test_a_pair_needs_numbers(tmp_path: Path) -> None:
    assert "reference.0: give outputs, probabilities or both" in refused(tmp_path, {"image": "a.png"})
    message = refused(tmp_path, {"image": "a.png", "output": [1.0]})
    assert "a key of [reference] of card.toml, got 'output'; did you mean 'outputs'?" in message


@pytest.mark.parametrize("text", ["name = ", "[]"])
def test_a_file_that_is_no_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleRefused, match=r"in card.json, got (JSONDecodeError|list); "):
        read_foreign_card(tmp_path / "card.json")
    with pytest.raises(BundleRefused, match=r"expected TOML or JSON in gone.toml, got FileNotFoundError"):
        read_foreign_card(tmp_path / "gone.toml")


def test_a_range_is_a_mean_and_a_standard_deviation(tmp_path: Path) -> None:
    scaling = {"normalisation": "range", "range": [-1024, 1024], "mean": None, "std": None}
    spec = read_foreign_card(save_card(tmp_path, input=scaling)).input.spec
    assert (spec.standardise, spec.mean, spec.std) == ("fixed", 0.5, 1 / 2048)
    assert [(x - spec.mean) / spec.std for x in (0, 0.5, 1)] == [-1024, 0, 1024]


def test_the_same_numbers_for_all_channels_are_one_number(tmp_path: Path) -> None:
    given = read_foreign_card(save_card(tmp_path, input={"mean": [0.5] * 3, "std": 0.25})).input
    assert not given.channels_differ
    assert (given.spec.mean, given.spec.std) == (0.5, 0.25)


def read(folder: Path, name: str) -> Pairs:
    card = read_foreign_card(save_card(folder))
    return read_pairs(card, folder / "card.toml", folder / name)


def test_pairs_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    seen = write_image(tmp_path / "films" / "a.png", 20, 30)
    pair = {"image": "films/a.png", "outputs": [1.5], "probabilities": [0.8]}
    (tmp_path / "pairs.json").write_text(json.dumps({"reference": [pair]}), encoding="utf-8")
    (found,) = read(tmp_path, "pairs.json")
    np.testing.assert_allclose(found.image.pixels, seen, atol=1e-6)
    assert found.outputs is not None
    assert found.probabilities is not None
    assert (found.outputs.tolist(), found.probabilities.tolist()) == ([1.5], [0.8])


@pytest.mark.parametrize(("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_pairs_as_arrays(tmp_path: Path, kind: Any, white: int) -> None:
    arrays: dict[str, Any] = {"images": np.full((2, 9, 12), white, kind), "outputs": np.array([[1.0, 2.0], [3.0, 4.0]])}
    np.savez(tmp_path / "pairs.npz", **arrays)
    save_file(arrays, tmp_path / "pairs.safetensors")
    for name in ("pairs.npz", "pairs.safetensors"):
        first, second = read(tmp_path, name)
        assert (first.image.pixels == 1).all()
        assert (first.image.facts.rows, first.image.facts.columns) == (9, 12)
        assert second.outputs is not None
        assert second.outputs.tolist() == [3.0, 4.0]
        assert second.probabilities is None


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"images": np.zeros((1, 9, 9), np.int32), "outputs": np.zeros((1, 1))}, "floats in .0, 1., got int32"),
        ({"images": np.full((1, 9, 9), 7.0), "outputs": np.zeros((1, 1))}, "floats in .0, 1., got float64"),
        ({"images": np.zeros((2, 9, 9)), "outputs": np.zeros((3, 1))}, "a row for each, got images .2, 9, 9., outputs"),
        ({"images": np.zeros((1, 9, 9))}, "expected images with outputs or probabilities in pairs.npz, got images"),
        ({"images": np.zeros((1, 9, 9)), "output": np.zeros(1)}, "got images, output; rename the arrays"),
        ({"images": np.array([{}], dtype=object), "outputs": np.zeros(1)}, "arrays in pairs.npz, got ValueError"),
    ],
)
def test_arrays_that_are_no_pairs(tmp_path: Path, arrays: dict[str, Any], complaint: str) -> None:
    np.savez(tmp_path / "pairs.npz", **arrays)
    with pytest.raises(BundleRefused, match=complaint):
        read(tmp_path, "pairs.npz")


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    card = read_foreign_card(save_card(tmp_path, {"image": "gone.png", "outputs": [0.0]}))
    assert isinstance(card, ForeignCard)
    with pytest.raises(ImageRefused, match=r"gone.png"):
        read_pairs(card, tmp_path / "card.toml")
