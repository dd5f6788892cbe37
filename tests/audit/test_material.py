"""Who is in the sample, and where masks come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.audit.films import films
from wetread.audit.features import CELLS, GRID, TEXTURES, on_grid, texture_of
from wetread.audit.material import FACTS, gather_material, material_of_arrays
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.phantom_dataset import DatasetPlan, make_dataset
from wetread.errors import DatasetRefused, UsageError
from wetread.imaging import load_image
from wetread.models.bundle import load_finder

Rows = list[dict[str, object]]


def shelf(folder: Path, rows: Rows, **meta: object) -> Manifest:
    """A small film on disk for each row."""
    images, _ = films(len(rows))
    for number, (row, image) in enumerate(zip(rows, images, strict=True)):
        row["path"] = f"{number}.png"
        Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"{number}.png")
    table = pd.DataFrame(rows)
    return Manifest(
        table, DatasetMeta.model_validate({"name": "t", "root": str(folder), "classes": ("no", "yes"), **meta}), folder
    )


def test_every_patient_gives_one_image_before_anybody_gives_two(tmp_path: Path) -> None:
    rows: Rows = [{"label": "no" if p % 2 else "yes", "patient": f"p{p}"} for p in range(20) for _ in range(4)]
    manifest = shelf(tmp_path, rows)
    one = gather_material(manifest, limit=20)
    assert np.unique(one.patients).size == 20
    two = gather_material(manifest, limit=30)
    assert np.unique(two.patients, return_counts=True)[1].max() == 2
    assert (two.of, len(two)) == (80, 30)
    assert list(two.names) == sorted(two.names, key=lambda n: int(n.split(".")[0]))  # in the order of the manifest


def test_labels_and_sources_keep_their_shares_and_rare_ones_are_not_lost(tmp_path: Path) -> None:
    rows: Rows = [
        {"label": "yes" if i % 4 == 0 else "no", "source": "small" if i % 10 == 0 else "large", "split": "train"}
        for i in range(200)
    ]
    found = gather_material(shelf(tmp_path, rows), limit=40)
    assert found.targets[:, 0].mean() == pytest.approx(0.25, abs=0.03)
    assert found.sources is not None
    assert (found.sources == "small").mean() == pytest.approx(0.1, abs=0.03)
    assert set(found.splits) == {"train"}


def test_the_seed_decides_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    rows: Rows = [{"label": (None, "no", "yes")[i % 3]} for i in range(60)]
    manifest = shelf(tmp_path, rows)
    first, again, other = (gather_material(manifest, limit=20, seed=seed) for seed in (0, 0, 1))
    assert first.names == again.names != other.names
    assert first.of == 40
    assert np.isfinite(first.targets).all()
    assert first.sources is None
    assert first.labels == ("yes",)
    assert np.unique(first.patients).size == 20  # an image without a patient is its own


def test_an_image_is_measured_as_it_lies_on_disk(tmp_path: Path) -> None:
    manifest = shelf(tmp_path, [{"label": "no"}, {"label": "yes"}])
    seen: list[tuple[str, int, int]] = []
    found = gather_material(manifest, progress=lambda *told: seen.append(told))
    pixels = load_image(tmp_path / "1.png").pixels
    np.testing.assert_array_equal(found.grey[1], on_grid(pixels))
    np.testing.assert_array_equal(found.texture[1], texture_of(pixels))
    size = (tmp_path / "1.png").stat().st_size
    expected = {"rows": 96, "columns": 96, "bits": 8, "bytes": size, "bytes per pixel": size / 96**2}
    for name, value in expected.items():
        assert found.facts[1, FACTS.index(name)] == pytest.approx(value)
    assert seen == [("looking at images", 1, 2), ("looking at images", 2, 2)]
    assert (found.masks, found.organ, found.organ_from) == (None, None, "no masks and no segmenter")


def test_annotated_masks_count_if_every_image_of_the_sample_has_one(tmp_path: Path) -> None:
    rows: Rows = [{"label": ("no", "yes")[i % 2], "mask": f"mask-{i}.png"} for i in range(4)]
    manifest = shelf(tmp_path, rows, organ="lungs")
    for number, mask in enumerate(films(4)[1]):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"mask-{number}.png")
    found = gather_material(manifest)
    assert found.masks is not None
    assert found.organ == "lungs"
    assert found.organ_from == "masks of the lungs that came with the data"
    assert found.masks.mean() == pytest.approx(np.mean(films(4)[1]), rel=0.1)
    table = manifest.table.copy()
    table.loc[0, "mask"] = None
    assert gather_material(manifest.with_table(table)).masks is None


def test_the_finder_draws_the_organ_where_masks_are_missing(tmp_path: Path) -> None:
    """Phantoms know their lungs: what the segmenter found must be them, on the grid."""
    plan = DatasetPlan(n=6, size_px=192, format="png", fractions={})
    manifest = make_dataset(tmp_path / "set", plan)
    truth = gather_material(manifest)
    assert truth.masks is not None
    table = manifest.table.drop(columns=[c for c in manifest.table.columns if c.startswith("mask")])
    found = gather_material(manifest.with_table(table), load_finder("lungs", "lungs"))
    assert found.masks is not None
    assert found.organ_from == "the lungs as the segmenter lungs finds it"
    overlap = 2 * (found.masks & truth.masks).sum() / (found.masks.sum() + truth.masks.sum())
    assert overlap > 0.7  # the segmenter learned lungs with the part behind the heart
    assert found.margin == truth.margin == 0.03


def test_a_data_set_without_labels_is_gathered_whole(tmp_path: Path) -> None:
    found = gather_material(shelf(tmp_path, [{"source": "a"}, {"source": "b"}], classes=()))
    assert (found.labels, found.targets.shape, len(found)) == ((), (2, 0), 2)


def test_damaged_images_and_senseless_limits_are_refused(tmp_path: Path) -> None:
    manifest = shelf(tmp_path, [{"label": "no"}, {"label": "yes"}])
    with pytest.raises(UsageError, match=r"expected a limit of at least 1 image, got 0; ask for more"):
        gather_material(manifest, limit=0)
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(DatasetRefused, match=r"expected images that can be read, got 1\.png .*dataset check"):
        gather_material(manifest)


def test_arrays_in_memory_give_the_same_and_can_be_taken_apart() -> None:
    images, masks = films(5)
    targets = np.array([[0], [1], [0], [1], [np.nan]], np.float32)
    found = material_of_arrays(images, targets, masks=masks, sources=["a", "b", "a", "b", "a"])
    assert found.grey.shape == (5, GRID, GRID)
    assert found.texture.shape == (5, CELLS, CELLS, len(TEXTURES))
    part = found.take(np.array([3, 1]))
    assert part.names == ("image 3", "image 1")
    assert part.sources is not None
    assert part.sources.tolist() == ["b", "b"]
    np.testing.assert_array_equal(part.grey, found.grey[[3, 1]])
    assert len(found.take(np.isfinite(targets[:, 0]))) == 4
