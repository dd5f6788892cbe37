"""One call for every method: what is refused, and what the checked map carries on."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.explain.linear import SIDE, formula_reader, picture
from tests.models.support import small_reader
from wetread.errors import ExplanationFailed, UsageError
from wetread.explain import CAM_METHODS, METHODS, Explanation, Method, Options, Target, explain_images
from wetread.explain.dispatch import GRADIENT_METHODS, check_target, maker_of
from wetread.models.predict import Reader

COSTLY: tuple[Method, ...] = (
    "gradient-x-input",
    "smoothgrad",
    "integrated-gradients",
    "gradient-shap",
    "occlusion",
    "rise",
)


def bright(x: Tensor) -> Tensor:
    return x[:, :8].mean((1, 2)) - x[:, 8:].mean((1, 2)) + 3 * x[:, 2:6, 2:6].mean((1, 2))


def explained(
    reader: Reader, batch: Tensor, target: Target, options: Options | None = None, **more: object
) -> list[Explanation | ExplanationFailed]:
    sizes = [(SIDE * 2, SIDE * 3)] * len(batch)
    return explain_images(reader, reader.forward(batch), target, sizes, batch, options=options, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", COSTLY)
def test_the_checked_map_carries_what_the_maker_found(method: Method) -> None:
    reader, batch = formula_reader(bright), picture(count=2)
    options = Options(samples=40, fill="black", seed=2)
    target = Target("finding", method)
    found = explained(reader, batch, target, options)
    assert len(found) == 2
    for one in found:
        assert isinstance(one, Explanation)
        assert (one.method, one.label, one.layer) == (method, "finding", "input")
        assert one.size == (SIDE * 2, SIDE * 3)
        assert one.limits[0] == "Shows where the score came from, not where disease is."
        assert one.passes > 1
        assert one.baseline == ("" if method == "smoothgrad" else "black")
        assert one.heat.shape == one.size
        assert one.scale == one.map.max() > 0
        top, left = np.unravel_index(one.heat.argmax(), one.size)
        assert top < SIDE  # the upper half speaks for it
        assert left < one.size[1]


def test_every_method_has_a_maker_or_is_a_class_activation_map() -> None:
    for method in METHODS:
        if method in CAM_METHODS:
            with pytest.raises(UsageError, match=f"expected one of gradient-x-input.*, got {re.escape(method)}"):
                maker_of(method)
        else:
            assert callable(maker_of(method))
    assert set(GRADIENT_METHODS) < set(METHODS)


def test_a_class_activation_map_goes_through_the_feature_maps() -> None:
    reader = small_reader("cnn", 64, ("a", "b"))
    batch = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = [
        one
        for label in ("a", "b")
        for one in explain_images(reader, reader.forward(batch), Target(label, layer="last"), [(64, 64)], batch)
        if isinstance(one, Explanation)
    ]
    assert found
    assert all((one.layer, one.passes) == ("blocks", 1) for one in found)


def test_an_image_without_evidence_has_a_reason_and_the_others_a_map() -> None:
    """Occluding a constant score changes nothing."""
    reader = formula_reader(lambda x: torch.where(x.mean((1, 2)) > 0.6, 0.0, bright(x)))
    batch = torch.cat([torch.full((1, 1, SIDE, SIDE), 0.9), picture()])
    constant, usual = explained(reader, batch, Target("finding", "occlusion"), Options(samples=9, fill="mean"))
    assert isinstance(constant, ExplanationFailed)
    assert "expected a occlusion map for 'finding', got zero everywhere" in str(constant)
    assert isinstance(usual, Explanation)


def test_a_window_puts_the_map_where_the_reader_looked() -> None:
    reader, batch = formula_reader(bright), picture()
    (found,) = explain_images(
        reader,
        reader.forward(batch),
        Target("finding", "gradient-x-input"),
        [(100, 100)],
        batch,
        [(50, 60, 32, 40)],
    )
    assert isinstance(found, Explanation)
    outside = found.heat.copy()
    outside[50:82, 60:100] = 0
    assert not outside.any()
    assert found.heat.max() > 0.5


def test_wrong_labels_and_layers_are_refused() -> None:
    reader, batch = formula_reader(bright), picture()
    with pytest.raises(UsageError, match=r"expected one of the labels finding, got 'finding2'"):
        explained(reader, batch, Target("finding2", "rise"))
    with pytest.raises(UsageError, match="expected no --layer for rise, got layer3; leave it out"):
        explained(reader, batch, Target("finding", "rise", "layer3"))
    with pytest.raises(UsageError, match="expected no --layer for lime, got layer3"):
        check_target(reader, Target("finding", "lime", "layer3"), batch)


@pytest.mark.parametrize("method", METHODS)
def test_targets_are_checked_without_the_work_of_a_map(method: Method) -> None:
    """A reader without feature maps and without gradients is left with the methods that need neither."""
    asked: list[int] = []

    def noted(x: Tensor) -> Tensor:
        asked.append(len(x))
        return bright(x)

    reader = formula_reader(noted, gradients=False)
    target = Target("finding", method)
    if method in (*CAM_METHODS, *GRADIENT_METHODS):
        with pytest.raises(ExplanationFailed, match=r"expected a network with (feature maps|gradients)"):
            check_target(reader, target, picture())
    else:
        check_target(reader, target, picture())
    assert sum(asked) <= 1
