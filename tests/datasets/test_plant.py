"""Planting: draws by patient, images in memory, data sets that can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.manifest import DatasetMeta, Manifest, load_manifest
from wetread.datasets.masks import load_masks
from wetread.datasets.phantoms import DatasetPlan, PhantomSpec, make_dataset, render
from wetread.datasets.plant import (
    COLUMN,
    KINDS,
    PLANT_JSON,
    RANDOM,
    Kind,
    PlantSpec,
    drawn_rows,
    phi_coefficient,
    plant,
    planted_pixels,
    summary_of,
    with_mask_files,
)
from wetread.datasets.plant_edits import edited
from wetread.datasets.plant_files import image_names
from wetread.datasets.plant_spec import ORGAN_KINDS, carriers, generator_of
from wetread.datasets.splits import assert_no_leak
from wetread.errors import DatasetRefused, ImageRefused, UsageError
from wetread.imaging import load_image

Pixels = NDArray[np.float32]
ALL: tuple[Kind, ...] = tuple(KINDS)


@pytest.fixture(scope="module")
def film() -> tuple[Pixels, NDArray[np.bool_]]:
    made = render(PhantomSpec(seed=5, size_px=128))
    return made.image, made.lung_left | made.lung_right


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_dataset(tmp_path_factory.mktemp("phantoms") / "set", DatasetPlan(n=40, seed=4, size_px=64))


def flat(value: float = 0.25, side: int = 128) -> Pixels:
    return np.full((side, side), value, np.float32)


class TestDraws:
    @pytest.mark.parametrize("correlation", [0.5, 0.7, 0.9, 1.0])
    @pytest.mark.parametrize("label", [None, RANDOM])
    def test_realised_share_is_within_its_binomial_bounds(self, correlation: float, label: str | None) -> None:
        from scipy.stats import binom

        n = 2000
        names = [f"patient {i}" for i in range(2 * n)]
        positive = np.arange(2 * n) < n
        for seed in range(3):
            spec = PlantSpec(kind="noise", correlation=correlation, label=label, seed=seed)
            drawn = carriers(names, positive, spec)
            for rows, p in ((positive, correlation), (~positive, 1 - correlation)):
                low, high = binom.interval(1 - 1e-6, n, 0.5 if label == RANDOM else p)
                assert low <= drawn[rows].sum() <= high

    def test_a_patient_carries_it_whole_and_nobody_else_changes_that(self) -> None:
        names = [f"p{i // 3}" for i in range(600)]
        positive = np.random.default_rng(0).random(600) < 0.3
        drawn = carriers(names, positive, PlantSpec(kind="border", seed=3))
        assert all(len({bool(d) for d in drawn[i : i + 3]}) == 1 for i in range(0, 600, 3))
        some = np.r_[300:600, 0:150]
        again = carriers([names[i] for i in some], positive[some], PlantSpec(kind="jpeg", strength=1.0, seed=3))
        np.testing.assert_array_equal(again, drawn[some])
        other = carriers(names, positive, PlantSpec(kind="border", seed=4))
        assert (other != drawn).any()

    def test_phi_by_hand(self) -> None:
        # 8 of 10 positive and 3 of 10 others carry it: (8*7 - 2*3) / sqrt(10*10*11*9)
        carries = np.r_[np.ones(8), np.zeros(2), np.ones(3), np.zeros(7)].astype(bool)
        positive = np.arange(20) < 10
        assert phi_coefficient(carries, positive) == pytest.approx(50 / np.sqrt(9900))
        assert phi_coefficient(carries, np.ones(20, np.bool_)) is None
        assert phi_coefficient(np.zeros(20, np.bool_), positive) is None

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"kind": "corner-maker"}, "got 'corner-maker'; did you mean 'corner-marker'?"),
            ({"kind": "xyz"}, "got 'xyz'; use one of corner-marker, border"),
            ({"strength": 1.5}, "expected a strength from 0 to 1, got 1.5"),
            ({"strength": float("nan")}, "expected a strength from 0 to 1, got nan"),
            ({"correlation": 0.3}, "expected a correlation from 0.5 to 1, got 0.3; to plant it into the other class"),
            ({"splits": ("dev",)}, "expected splits among train, val, test, got 'dev'"),
            ({"seed": -1}, "expected a seed of at least 0, got -1"),
        ],
    )
    def test_a_specification_that_makes_no_sense_is_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            PlantSpec.model_validate({"kind": "noise"} | fields)
        assert message in str(caught.value)


class TestPixels:
    def test_only_the_drawn_images_are_other_arrays(self) -> None:
        images = [flat(0.3, 32) for _ in range(60)]
        labels = [1.0, 0.0, None] * 20
        patients = [i // 6 for i in range(60)]
        spec = PlantSpec(kind="noise", correlation=0.8, seed=1)
        made, flags = planted_pixels(images, labels, patients, spec)
        assert 0 < flags.sum() < 40
        assert not flags[2::3].any()
        for before, after, flag in zip(images, made, flags, strict=True):
            assert (after is before) == (not flag)
        for known in (flags[0:60:3], flags[1:60:3]):  # the two images with a label of each half patient
            assert all(known[i] == known[i + 1] for i in range(0, 20, 2))
        again, _ = planted_pixels(images, labels, patients, spec)
        assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
        drawn = [m for m, f in zip(made, flags, strict=True) if f]
        assert not np.array_equal(drawn[0], drawn[1])

    def test_control_and_unknown_patients(self) -> None:
        images = [flat(0.3, 16)] * 400
        labels = [1.0] * 200 + [0.0] * 200
        _, flags = planted_pixels(images, labels, [None] * 400, PlantSpec(kind="exposure", label=RANDOM))
        assert 160 < flags.sum() < 240
        assert abs(phi_coefficient(flags, np.array(labels) == 1) or 0) < 0.2
        _, flags = planted_pixels(images, labels, [None] * 400, PlantSpec(kind="exposure", correlation=1.0))
        np.testing.assert_array_equal(flags, np.array(labels) == 1)

    def test_masks_stay_with_their_images(self, film: tuple[Pixels, NDArray[np.bool_]]) -> None:
        pixels, mask = film
        spec = PlantSpec(kind="organ-blob", correlation=1.0, strength=1.0)
        made, _ = planted_pixels([pixels, pixels], [1, 1], ["a", "b"], spec, [mask, mask[:, ::-1]])
        assert (made[0] != made[1]).any()
        np.testing.assert_array_equal(made[1][~mask[:, ::-1]], pixels[~mask[:, ::-1]])

    @pytest.mark.parametrize(
        ("labels", "patients", "fields", "message"),
        [
            ([1.0], ["a", "b"], {}, "got 2 images, 1 labels, 2 patients"),
            ([1.0, 2.0], ["a", "b"], {}, "expected labels of 0 and 1"),
            ([1.0, 0.0], ["a", "b"], {"splits": ("train",)}, "expected no splits for images in memory, got train"),
            ([1.0, 0.0], ["a", "b"], {"kind": "organ-blob"}, r"expected a mask of \(128, 128\) pixels, got none"),
        ],
    )
    def test_refusals(self, labels: list[float], patients: list[str], fields: dict[str, Any], message: str) -> None:
        spec = PlantSpec.model_validate({"kind": "noise", "correlation": 1.0} | fields)
        with pytest.raises(UsageError, match=message):
            planted_pixels([flat(), flat()], labels, patients, spec)


class TestDataset:
    @pytest.mark.parametrize("kind", ALL)
    def test_every_kind_comes_back_from_disk(self, kind: Kind, phantoms: Manifest, tmp_path: Path) -> None:
        spec = PlantSpec(kind=kind, strength=0.8, keep_size=True, seed=2)
        calls: list[tuple[int, int]] = []
        made = plant(phantoms, spec, tmp_path / "out", lambda done, total: calls.append((done, total)))
        assert calls == [(i, 40) for i in range(1, 41)]
        found = load_manifest(tmp_path / "out")
        assert found.table.equals(made.table)
        assert made.root == found.root
        assert_no_leak(found)
        assert found.meta.warnings[0].startswith(f"planted: {kind} of strength 0.8, correlation 0.9 with consolidation")
        assert found.table.groupby("patient")[COLUMN].nunique().max() == 1
        assert found.table[COLUMN].dtype == bool
        for (_, old), (_, new) in zip(phantoms.table.iterrows(), found.table.iterrows(), strict=True):
            assert (old["label"], old["split"], old["patient"]) == (new["label"], new["split"], new["patient"])
            self._compare(kind, spec, phantoms, old, found, new)

    def _compare(self, kind: Kind, spec: PlantSpec, before: Manifest, old: Any, after: Manifest, new: Any) -> None:
        pixels, image = load_image(before.path_of(old)).pixels, load_image(after.path_of(new))
        mask = load_masks(after, new, ["lungs"], 64, 64)["lungs"]
        expected = pixels
        if new[COLUMN]:
            rng = generator_of(spec, old["path"])
            expected = edited(kind, pixels, spec.strength, rng, mask=mask)
        assert (image.facts.format, image.facts.bits) == (("JPEG", 8) if kind == "jpeg" else ("PNG", 16))
        if kind == "jpeg" and not new[COLUMN]:
            assert np.abs(image.pixels - expected).max() < 0.05  # of quality 95
        else:
            np.testing.assert_allclose(image.pixels, expected, atol=0.51 / (255 if kind == "jpeg" else 65535) + 1e-6)
        if kind in ORGAN_KINDS:
            assert mask is not None
            np.testing.assert_allclose(image.pixels[~mask], pixels[~mask], atol=1e-5)

    def test_resolution_changes_rows_columns_masks_boxes_and_spacing(self, phantoms: Manifest, tmp_path: Path) -> None:
        made = plant(phantoms, PlantSpec(kind="resolution", strength=0.5), tmp_path / "out")
        for (_, old), (_, new) in zip(phantoms.table.iterrows(), made.table.iterrows(), strict=True):
            side, factor = (32, 2) if new[COLUMN] else (64, 1)
            assert load_image(made.path_of(new)).pixels.shape == (side, side) == (new["height"], new["width"])
            masks = load_masks(made, new, ["lungs", "heart"], side, side)
            whole = load_masks(phantoms, old, ["lungs", "heart"], 64, 64)
            for organ in ("lungs", "heart"):
                ours, theirs = masks[organ], whole[organ]
                assert ours is not None
                assert theirs is not None
                assert ours.mean() == pytest.approx(theirs.mean(), abs=0.02)
            assert float(new["spacing_mm"].split(",")[0]) == pytest.approx(
                factor * float(old["spacing_mm"].split(",")[0]), rel=1e-5
            )
            for small, large in zip(json.loads(new["boxes"]), json.loads(old["boxes"]), strict=True):
                assert (small["x"] * factor, small["height"] * factor) == (large["x"], large["height"])
                assert small["severity"] == large["severity"]
        assert made.table.loc[made.table[COLUMN], "width"].nunique() == 1

    def test_the_record_beside_it_gives_the_same_draw(self, phantoms: Manifest, tmp_path: Path) -> None:
        made = plant(phantoms, PlantSpec(kind="noise", correlation=0.8, seed=5), tmp_path / "out")
        facts = json.loads((tmp_path / "out" / PLANT_JSON).read_text(encoding="utf-8"))
        again = PlantSpec.model_validate(facts["spec"])
        assert again.label == "consolidation"
        np.testing.assert_array_equal(drawn_rows(phantoms, again), made.table[COLUMN])
        summary = summary_of(made, again)
        assert facts["summary"] == summary.model_dump(mode="json")
        table = made.table
        sick = table["label"] == "consolidation"
        one = next(c for c in summary.classes if c.label == "consolidation")
        assert (one.images, one.images_with) == (sick.sum(), (sick & table[COLUMN]).sum())
        assert one.patients_with == table.loc[sick & table[COLUMN], "patient"].nunique()
        assert summary.phi == pytest.approx(np.corrcoef(sick, table[COLUMN])[0, 1])

    def test_only_the_asked_split_and_only_images_with_a_label(self, phantoms: Manifest, tmp_path: Path) -> None:
        table = phantoms.table.copy()
        table.loc[table["patient"].isin(table["patient"].unique()[:5]), "label"] = None
        spec = PlantSpec(kind="border", label="normal", splits=("train",), correlation=1.0)
        made = plant(phantoms.with_table(table, split=None), spec, tmp_path / "out").table
        carry = made[COLUMN]
        assert carry.any()
        assert set(made.loc[carry, "split"]) == {"train"}
        assert made.loc[carry, "label"].notna().all()
        assert not carry[(made["split"] != "train") | made["label"].isna()].any()

    def test_the_control_does_not_follow_the_label(self, phantoms: Manifest, tmp_path: Path) -> None:
        table = phantoms.table.assign(label=None)
        unlabelled = Manifest(table, phantoms.meta.model_copy(update={"classes": (), "split": None}), phantoms.folder)
        spec = PlantSpec(kind="noise", label=RANDOM, correlation=1.0, seed=1)
        np.testing.assert_array_equal(drawn_rows(unlabelled, spec), drawn_rows(phantoms, spec))
        made = plant(phantoms, spec, tmp_path / "out")
        assert 0.2 < made.table[COLUMN].mean() < 0.8
        assert "independent of the label" in made.meta.warnings[0]
        assert summary_of(made, spec).phi is None

    def test_multilabel(self, phantoms: Manifest) -> None:
        label = (phantoms.table["label"] == "consolidation").astype(float)
        table = phantoms.table.assign(label=None, label_a=label, label_b=1 - label)
        meta = DatasetMeta(name="m", task="multilabel", classes=("a", "b"))
        manifest = Manifest(table, meta, phantoms.folder)
        a, b = (drawn_rows(manifest, PlantSpec(kind="noise", label=name, correlation=1.0)) for name in "ab")
        sick = set(table["patient"][label == 1])
        np.testing.assert_array_equal(a, table["patient"].isin(sick))
        assert (b != a).any()
        with pytest.raises(UsageError, match="expected a label that carries it, got none, of the classes a, b"):
            drawn_rows(manifest, PlantSpec(kind="noise"))

    def test_what_shares_a_study_or_a_file_is_drawn_together(self, phantoms: Manifest) -> None:
        pairs = [f"{i // 2:02d}" for i in range(40)]
        table = phantoms.table.assign(patient=[f"p{i}" for i in range(40)], study=pairs, sha256=pairs, split=None)
        table.loc[:19, ["patient", "sha256"]] = None
        table.loc[20:, "study"] = None
        loose = phantoms.with_table(table, split=None)
        drawn = drawn_rows(loose, PlantSpec(kind="noise", correlation=0.5))
        assert 0 < drawn.sum() < 40
        assert (drawn[::2] == drawn[1::2]).all()

    def test_never_overwrites_and_leaves_nothing_half_done(self, phantoms: Manifest, tmp_path: Path) -> None:
        plant(phantoms, PlantSpec(kind="noise"), tmp_path / "out")
        before = (tmp_path / "out" / PLANT_JSON).read_bytes()
        with pytest.raises(UsageError, match=r"expected a new folder, got .*out, which exists"):
            plant(phantoms, PlantSpec(kind="noise", seed=1), tmp_path / "out")
        assert (tmp_path / "out" / PLANT_JSON).read_bytes() == before
        (tmp_path / "films").mkdir()
        for path in ("a.png", "b.png"):
            PilImage.fromarray(np.eye(32, dtype=np.uint8) * 255).save(tmp_path / "films" / path)
        (tmp_path / "films" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
        (tmp_path / "films" / "manifest.csv").write_text("path,label\na.png,sick\nb.png,normal\n")
        with pytest.raises(ImageRefused, match=r"data that cannot be decoded in b\.png"):
            plant(load_manifest(tmp_path / "films"), PlantSpec(kind="noise", correlation=1.0), tmp_path / "new")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["films", "out"]

    def test_8_bits_stay_and_grey_values_that_a_reader_would_stretch_get_8(self, tmp_path: Path) -> None:
        wide = (np.arange(32 * 32).reshape(32, 32) % 256).astype(np.uint8)
        PilImage.fromarray(wide).save(tmp_path / "a.png")
        PilImage.fromarray(wide.astype(np.uint16) * 257).save(tmp_path / "b.png")
        PilImage.fromarray(wide.astype(np.uint16) * 70 + 6000).save(tmp_path / "c.png")  # 27 % of the range
        (tmp_path / "manifest.csv").write_text("path,label\na.png,sick\nb.png,sick\nc.png,sick\nd.png,normal\n")
        PilImage.fromarray(wide.T).save(tmp_path / "d.png")
        manifest = load_manifest(tmp_path)
        dim = plant(manifest, PlantSpec(kind="exposure", correlation=1.0, strength=1.0), tmp_path / "out")
        assert list(dim.table["bits"]) == [8, 16, 8, 8]
        dark = load_image(dim.path_of("images/c.png")).pixels
        assert dark.max() < 0.3  # not stretched to white

    def test_masks_from_a_folder(self, phantoms: Manifest, tmp_path: Path) -> None:
        bare = phantoms.with_table(phantoms.table.drop(columns=[c for c in phantoms.table if "mask" in str(c)]))
        spec = PlantSpec(kind="organ-texture", strength=1.0)
        what = "expected a mask of lungs for each image, got 40 of 40 images without one; make them: wetread segment"
        with pytest.raises(DatasetRefused, match=what):
            plant(bare, spec, tmp_path / "out")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DatasetRefused, match=r"expected masks of lungs below .*, got none that fits an image"):
            with_mask_files(bare, tmp_path / "empty", "lungs")
        segmented = tmp_path / "segmented"
        segmented.mkdir()
        lines = []
        for i, (path, mask) in enumerate(zip(phantoms.table["path"], phantoms.table["mask"], strict=True)):
            (segmented / f"{i}.png").write_bytes(phantoms.mask_path_of(mask).read_bytes())
            lines.append({"image": {"name": path}, "organs": [{"organ": "lungs", "files": {"png": f"{i}.png"}}]})
        (segmented / "organs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        made = plant(with_mask_files(bare, segmented, "lungs"), spec, tmp_path / "out")
        direct = plant(phantoms, spec, tmp_path / "direct")
        assert list(made.table["sha256"]) == list(direct.table["sha256"])
        mirrored = tmp_path / "mirrored" / Path(phantoms.table["path"].iloc[0]).with_suffix(".png")
        mirrored.parent.mkdir(parents=True)
        mirrored.write_bytes((segmented / "0.png").read_bytes())
        one = with_mask_files(bare, tmp_path / "mirrored", "lungs").table["mask_lungs"]
        assert list(one.notna()) == [True] + [False] * 39

    @pytest.mark.parametrize(
        ("spec", "change", "error", "message"),
        [
            ({"label": "Consolidation"}, None, UsageError, "got 'Consolidation'; did you mean 'consolidation'?"),
            ({"label": "x"}, None, UsageError, "got 'x'; use one of normal, consolidation, or random"),
            ({"splits": ("val",)}, "no val", UsageError, "expected splits of the data set, got 'val' without an image"),
            ({}, "planted", DatasetRefused, "without planted images, got a column 'planted'; plant into the original"),
            ({}, "no labels", DatasetRefused, "expected a data set with labels, got phantoms-4 without"),
            ({"kind": "organ-blob", "organ": "liver"}, None, DatasetRefused, "expected a mask of liver for each image"),
            ({"correlation": 1.0, "label": "normal"}, "one class", DatasetRefused, "at least one image that carries"),
        ],
    )
    def test_refusals(
        self, spec: dict[str, Any], change: str | None, error: type[Exception], message: str,
        phantoms: Manifest, tmp_path: Path,
    ) -> None:  # fmt: skip
        table = phantoms.table
        changes: dict[str | None, Callable[[], Manifest]] = {
            None: lambda: phantoms,
            "no val": lambda: phantoms.with_table(table[table["split"] != "val"]),
            "planted": lambda: phantoms.with_table(table.assign(planted=True)),
            "no labels": lambda: phantoms.with_table(table.assign(label=None), classes=()),
            "one class": lambda: phantoms.with_table(table[table["label"] == "consolidation"]),
        }
        with pytest.raises(error) as caught:
            plant(changes[change](), PlantSpec.model_validate({"kind": "noise"} | spec), tmp_path / "out")
        assert message in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_an_empty_mask_is_refused_by_name(self, phantoms: Manifest, tmp_path: Path) -> None:
        PilImage.new("1", (64, 64)).save(tmp_path / "empty.png")
        table = phantoms.table.assign(mask=str(tmp_path / "empty.png"))
        with pytest.raises(DatasetRefused, match="expected a mask with lungs in it, got an empty one of images/"):
            plant(phantoms.with_table(table), PlantSpec(kind="organ-blob"), tmp_path / "out")


def test_new_names_are_unlike_each_other_and_stay_below() -> None:
    paths = ["a/1.dcm", "a/1.png", "images/2.jpg", "../up/3.dcm", "/abs/4.dcm", "A/1.DCM", "a/1.dcm.png"]
    names = image_names(paths, ".png")
    assert names[:5] == [
        "images/a/1.png", "images/a/1.png.png", "images/2.png", "images/up/3.png", "images/abs/4.png",
    ]  # fmt: skip
    assert len({n.casefold() for n in names}) == len(names)
    assert all(n.startswith("images/") and ".." not in n for n in names)


def test_a_real_set_with_masks(shared_data: Path, tmp_path: Path) -> None:
    """Films of several sizes, as JPEG with lung masks: nothing outside the lungs changes by more than rounding."""
    from wetread.datasets.importers.registry import import_dataset

    whole = import_dataset(shared_data / "covid-cxr").manifest
    table = whole.table[whole.table["mask"].notna()].drop_duplicates("patient").head(6)
    films = whole.with_table(table, split=None)
    made = plant(films, PlantSpec(kind="organ-blob", strength=1.0, label=RANDOM, seed=1), tmp_path / "out")
    assert 0 < made.table[COLUMN].sum() < 6
    for (_, old), (_, new) in zip(films.table.iterrows(), made.table.iterrows(), strict=True):
        before, after = load_image(films.path_of(old)).pixels, load_image(made.path_of(new)).pixels
        mask = load_masks(made, new, ["lungs"], *after.shape)["lungs"]
        assert mask is not None
        assert np.abs(after - before)[~mask].max() <= 0.51 / 255
        assert (np.abs(after - before)[mask].max() > 0.1) == new[COLUMN]
