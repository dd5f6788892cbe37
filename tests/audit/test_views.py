"""What a probe sees outside the organ does not depend on the organ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.audit.films import SIDE, films, half, material, with_sign
from wetread.audit.features import CELLS, GRID
from wetread.audit.material import Material, material_of_arrays
from wetread.audit.views import (
    COMMON,
    FRAME,
    background_views,
    fact_views,
    frame_views,
    full_views,
    hidden_area,
    outline_views,
)
from wetread.models.guide import widened


@pytest.fixture(scope="module")
def pair() -> tuple[Material, Material]:
    """The same films without and with a sign inside the organ of all of them."""
    images, masks = films(40)
    everybody = np.ones(40, np.bool_)
    targets = half(40)[:, None].astype(np.float32)
    signed = with_sign(images, masks, everybody)
    return material_of_arrays(images, targets, masks=masks), material_of_arrays(signed, targets, masks=masks)


def test_a_sign_inside_the_organ_changes_nothing_outside(pair: tuple[Material, Material]) -> None:
    plain, _ = pair
    hidden = hidden_area(plain)
    assert hidden is not None
    seen = [background_views(one, hidden) for one in pair]
    for name, features in seen[0].items():
        np.testing.assert_array_equal(features, seen[1][name])
    whole = [full_views(one, hidden, around) for one, around in zip(pair, seen, strict=True)]
    assert any(not np.array_equal(features, whole[1][name]) for name, features in whole[0].items())


def test_the_same_area_is_hidden_in_all_images(pair: tuple[Material, Material]) -> None:
    plain = pair[0]
    hidden = hidden_area(plain)
    assert hidden is not None
    assert plain.masks is not None
    wide = np.stack([widened(mask, plain.margin) for mask in plain.masks])
    np.testing.assert_array_equal(hidden.area, wide.mean(0) > COMMON)
    assert 0.2 < hidden.share < 0.5
    assert not hidden.cells[CELLS // 2, CELLS // 2]
    assert hidden.cells[0].all()


def test_cells_that_an_organ_of_unusual_size_touches_come_from_another_image(pair: tuple[Material, Material]) -> None:
    """Its texture is set to a value that nothing else has: it must not be found outside the organ."""
    plain = pair[0]
    assert plain.masks is not None
    masks = plain.masks.copy()
    masks[3, 10:118, 10:118] = True
    texture = plain.texture.copy()
    texture[3, 1:15, 1:15] = 1000
    large = replace(plain, masks=masks, texture=texture)
    hidden = hidden_area(large)
    assert hidden is not None
    views = background_views(large, hidden)
    assert all(view.max() < 1000 for view in views.values())
    assert all(len(view) == 40 for view in views.values())


def test_an_organ_that_fills_the_image_leaves_nothing_to_judge(pair: tuple[Material, Material]) -> None:
    masks = np.ones((40, GRID, GRID), np.bool_)
    assert hidden_area(replace(pair[0], masks=masks)) is None
    assert hidden_area(replace(pair[0], masks=None)) is None


def test_the_frame_sees_the_outer_five_percent_alone() -> None:
    images, _ = films(3)
    inner = [image.copy() for image in images]
    edge = FRAME * SIDE // GRID + 2
    for image in inner:
        image[edge:-edge, edge:-edge] = 0.9
    targets = np.zeros((3, 1), np.float32)
    seen = [frame_views(material_of_arrays(shown, targets))["frame"] for shown in (images, inner)]
    np.testing.assert_array_equal(seen[0], seen[1])
    inner[0][0, 0:20] = 0.9
    assert not np.array_equal(seen[0], frame_views(material_of_arrays(inner, targets))["frame"])


def test_the_outline_knows_size_and_place() -> None:
    found, _ = material(4)
    masks = np.zeros((4, GRID, GRID), np.bool_)
    masks[1, 32:96, 32:96] = True
    masks[2, :64, :64] = True
    size = outline_views(replace(found, masks=masks))["outline size"]
    np.testing.assert_allclose(size[1, :1], 0.25)
    np.testing.assert_allclose(size[1, [1, 4]], 0.5, atol=1e-6)  # middle of columns and of rows
    np.testing.assert_allclose(size[2, [1, 4]], 0.25, atol=1e-6)
    assert np.isfinite(size).all()
    assert outline_views(replace(found, masks=None)) == {}


def test_facts_without_content_do_not_know_bytes() -> None:
    found, _ = material(4)
    facts = found.facts.copy()
    facts[:, 4:] *= 7
    other = replace(found, facts=facts)
    seen = [fact_views(one, content=False)["file"] for one in (found, other)]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(fact_views(found, content=True)["file"], fact_views(other, content=True)["file"])
