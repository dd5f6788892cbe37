"""The reference pair: how near is near enough, what the message says, and pairs that would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.foreign_support import Ramp, save_card, write_image
from wetread.errors import BundleRefused
from wetread.models.card import ReaderCard
from wetread.models.foreign import ForeignSource, import_foreign

Import = Callable[..., ReaderCard]
PLAIN = {"mean": 0.0, "std": 1.0}


@pytest.fixture
def bring(tmp_path: Path) -> Import:
    """``bring(graph, pair, ...)`` imports a graph with a card of these changes."""

    def run(graph: Ramp, *pairs: dict[str, Any], **changes: dict[str, Any]) -> ReaderCard:
        save_card(tmp_path, *pairs, **changes)
        source = ForeignSource(graph.save(tmp_path / "net.onnx"), tmp_path / "card.toml")
        return import_foreign(source, tmp_path / "shelf")

    return run


def seen(folder: Path, rows: int = 32, columns: int = 32) -> Any:
    """A reference image as a plain network is given it, (1, 3, rows, columns)."""
    return np.broadcast_to(write_image(folder / "a.png", rows, columns), (1, 3, rows, columns))


def test_the_tolerance_decides(tmp_path: Path, bring: Import) -> None:
    there = Ramp()(seen(tmp_path))[0]
    with pytest.raises(BundleRefused, match=r"differ by 0.001, tolerance 0.0001\); check normalisation, fit"):
        bring(Ramp(), {"image": "a.png", "outputs": there + 1e-3}, input=PLAIN)
    card = bring(Ramp(), {"image": "a.png", "outputs": there + 1e-3}, input=PLAIN, top={"tolerance": 0.01})
    assert card.foreign is not None
    assert card.foreign.reference is not None
    check = card.foreign.reference
    assert (check.images, check.compared, check.tolerance, check.resampled) == (1, "logits", 0.01, False)
    assert check.largest_difference == pytest.approx(1e-3, rel=1e-2)
    assert any("had the size of the input" in limit for limit in card.limits)


def test_one_wrong_pair_of_several_is_enough(tmp_path: Path, bring: Import) -> None:
    there = Ramp()(seen(tmp_path))[0]
    good, bad = {"image": "a.png", "outputs": there}, {"image": "a.png", "outputs": there + 1}
    with pytest.raises(BundleRefused, match=r"they differ by 1, "):
        bring(Ramp(), good, bad, input=PLAIN)


@pytest.mark.parametrize(
    ("scaled", "told"),
    [
        (lambda x: 255 * x, r"normalisation 'range' with range \[0, 255\] reproduces them"),
        (lambda x: 2 * x - 1, r"normalisation 'fixed' with mean 0.5 and std 0.5 reproduces them"),
        (lambda x: 2048 * x - 1024, r"normalisation 'range' with range \[-1024, 1024\] reproduces them"),
    ],
)
def test_a_usual_scaling_is_recognised(tmp_path: Path, bring: Import, scaled: Any, told: str) -> None:
    with pytest.raises(BundleRefused, match=told):
        bring(Ramp(), {"image": "a.png", "outputs": Ramp()(scaled(seen(tmp_path)))[0]}, input=PLAIN)


def test_another_fit_is_recognised(tmp_path: Path, bring: Import) -> None:
    cropped = seen(tmp_path, 32, 64)[..., 16:48]
    with pytest.raises(BundleRefused, match=r"fit 'crop' reproduces them: correct \[input\] in the card"):
        bring(Ramp(), {"image": "a.png", "outputs": Ramp()(cropped)[0]}, input=PLAIN)


def test_an_unknown_difference_of_a_resampled_image_says_how_to_rule_that_out(tmp_path: Path, bring: Import) -> None:
    nearest = seen(tmp_path, 64, 64)[..., ::2, ::2]
    with pytest.raises(BundleRefused, match=r"a reference image of 32 x 32 pixels needs no resampling"):
        bring(Ramp(), {"image": "a.png", "outputs": Ramp()(nearest)[0]}, input=PLAIN)


def test_the_activation_is_checked_where_probabilities_are_given(tmp_path: Path, bring: Import) -> None:
    there = Ramp(outputs=2)(seen(tmp_path))[0]
    sigmoids = 1 / (1 + np.exp(-there))
    pair = {"image": "a.png", "outputs": there, "probabilities": sigmoids}
    with pytest.raises(BundleRefused, match=r"the outputs are reproduced: check task and columns in the card"):
        bring(Ramp(outputs=2), pair, input=PLAIN, top={"task": "multiclass"})
    assert bring(Ramp(outputs=2), pair, input=PLAIN, top={"task": "multilabel"}).task == "multilabel"


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"outputs": [1.0, 2.0]}, r"expected 1 outputs for a.png, got 2; give all outputs of the network"),
        ({"probabilities": [0.1, 0.9]}, r"expected 1 probabilities for a.png, got 2"),
    ],
)
def test_another_number_of_numbers(tmp_path: Path, bring: Import, numbers: dict[str, Any], complaint: str) -> None:
    seen(tmp_path)
    with pytest.raises(BundleRefused, match=complaint):
        bring(Ramp(), {"image": "a.png", **numbers}, input=PLAIN)


def test_a_pair_of_which_the_original_is_sure_proves_nothing(tmp_path: Path, bring: Import) -> None:
    bright = 4096 * seen(tmp_path)
    graph = Ramp(end="Sigmoid")
    assert max(graph(bright)[0, 0], 1 - graph(bright)[0, 0]) > 0.9999
    scaled = {"normalisation": "range", "range": [0, 4096], "mean": None, "std": None}
    with pytest.raises(
        BundleRefused, match=r"a reference that tells a difference of 0.05 logits, got probabilities of"
    ):
        bring(
            graph,
            {"image": "a.png", "outputs": graph(bright)[0]},
            input=scaled,
            output={"gives": "probabilities"},
        )
