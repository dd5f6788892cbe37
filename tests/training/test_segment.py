"""``train_segmenter`` from films to a bundle: what it learns, writes, repeats, resumes and refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.training.support import tiny_organs
from wetread.datasets.manifest import Manifest
from wetread.errors import BundleRefused, DatasetRefused, Interrupted, SplitRefused, UsageError
from wetread.evaluation.overlap import dice
from wetread.models.bundle import load_segmenter
from wetread.models.organs import Segmenter
from wetread.training import segment_module
from wetread.training.config import SegmentConfig, config_of, load_recipe
from wetread.training.segment import SegmentResult, train_segmenter
from wetread.training.segment_data import load_annotated
from wetread.training.segment_scores import mean_overlaps, score_images

ORGANS = ("lungs", "heart")
QUICK = {"image_size": 32, "epochs": 1}


@pytest.fixture(scope="module")
def run(films: Manifest, tmp_path_factory: pytest.TempPathFactory) -> SegmentResult:
    """A finished run on lungs and heart; two hearts of its training films are unknown."""
    table = films.table.copy()
    training = table.index[table["split"] == "train"]
    table.loc[training[:2], "mask_heart"] = None
    table.loc[training[0], "mask"] = None
    return train_segmenter(films.with_table(table), tiny_organs(organs=ORGANS), tmp_path_factory.mktemp("run") / "run")


def column(run: Path, name: str) -> list[float]:
    """A column of the log, of all epochs."""
    with (run / "logs" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def stop_after(images: int) -> Callable[[str, int, int], None]:
    """A person who presses Ctrl-C when that many images were seen."""

    def progress(stage: str, done: int, total: int) -> None:
        if "training" in stage and done >= images:
            raise KeyboardInterrupt

    return progress


def test_a_training_lowers_its_loss(run: SegmentResult) -> None:
    first, last = column(run.run_folder, "train_loss")
    assert last < first - 0.05
    assert len(column(run.run_folder, "val_dice")) == 2


def test_a_run_leaves_everything_behind(run: SegmentResult) -> None:
    folder = run.run_folder
    assert {path.name for path in folder.iterdir()} == {
        *("config.toml", "results.json", "scores.parquet", "provenance.json"),
        *("reader", "checkpoints", "logs"),
    }
    assert load_recipe(folder / "config.toml", SegmentConfig)["organs"] == ["lungs", "heart"]
    results = json.loads((folder / "results.json").read_text())
    assert [row["name"] for row in results["metrics"]][:2] == ["dice lungs", "iou lungs"]
    assert set(results["seconds"]) == {"decoding", "training"}
    judged = len(set(run.scores["path"]))
    assert isinstance(run.card.data.images, int)
    used = run.card.data.images + judged
    assert results["images"] == {"used": used, "without_mask": 1, "masks": {"lungs": used, "heart": used - 1}}
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["hashes"] == {"model.safetensors": run.card.sha256}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), run.scores)


def test_the_bundle_of_a_run_loads_and_says_what_it_learned_from(run: SegmentResult, films: Manifest) -> None:
    loaded = load_segmenter(run.run_folder)
    assert loaded.card == run.card
    training = films.table[films.table["split"] == "train"].iloc[1:]
    assert loaded.card.data.images == len(training)
    assert loaded.card.data.patients == training["patient"].nunique()
    assert loaded.card.training["start"] == {"weights": "ImageNet (embedded)"}
    assert (loaded.card.encoder, loaded.card.architecture) == ("tf_efficientnet_lite0", "unet")
    assert {row.split for row in loaded.card.metrics} == {"validation"}


def test_scores_are_of_the_validation_films_and_of_the_shipped_weights(run: SegmentResult, films: Manifest) -> None:
    judged = films.table[films.table["split"] == "val"]
    assert sorted(set(run.scores["path"])) == sorted(judged["path"])
    assert len(run.scores) == 2 * len(judged)
    segmenter = load_segmenter(run.run_folder)
    for _, score in run.scores.iterrows():
        row = judged.set_index("path", drop=False).loc[score["path"]]
        image, masks = load_annotated(films, row, (score["organ"],))
        wanted = masks[score["organ"]]
        assert wanted is not None
        assert score["dice"] == pytest.approx(dice(segmenter.masks(image)[score["organ"]], wanted))
    lungs = next(row for row in run.card.metrics if row.name == "dice lungs")
    assert lungs.estimate.value == pytest.approx(run.scores.query("organ == 'lungs'")["dice"].mean())


def test_the_same_seed_gives_the_same_weights_and_resuming_changes_none(films: Manifest, tmp_path: Path) -> None:
    settings = {**QUICK, "augment": "organs"}
    found = [
        train_segmenter(films, tiny_organs(**settings, seed=seed), tmp_path / name).card.sha256
        for seed, name in ((3, "a"), (3, "b"), (4, "c"))
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
    again = train_segmenter(films, tiny_organs(epochs=9, seed=5), tmp_path / "a", resume=True)
    assert again.card.sha256 == found[0]
    assert (again.config.epochs, again.config.seed) == (1, 3)  # the settings of the run hold


def test_each_film_is_judged_by_the_network_that_did_not_see_its_patient(
    films: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[set[str]] = []
    original = segment_module.segment_loader

    def spy(images: Any, size: int, seed: int | None = None) -> Any:
        if seed is not None:
            given.append(set(images.table["patient"]))
        return original(images, size, seed)

    monkeypatch.setattr(segment_module, "segment_loader", spy)
    config = tiny_organs(**QUICK, folds=2)
    result = train_segmenter(films, config, tmp_path / "run")
    outside = films.table[films.table["split"] != "test"]
    assert sorted(result.scores["path"]) == sorted(outside["path"])
    for number, judged in result.scores.groupby("network"):
        assert not given[int(str(number)) - 1] & set(judged["patient"])
        assert given[int(str(number)) - 1] | set(judged["patient"]) == set(outside["patient"])
    segmenter = load_segmenter(result.run_folder)
    assert len(segmenter.networks) == result.card.networks == 2
    assert {row.split for row in result.card.metrics} == {"out-of-fold"}
    assert result.card.data.images == len(outside)
    own = [Segmenter(segmenter.card, [network]) for network in segmenter.networks]
    for _, score in result.scores.iloc[[0, -1]].iterrows():
        row = outside.set_index("path", drop=False).loc[score["path"]]
        image, masks = load_annotated(films, row, ("lungs",))
        assert masks["lungs"] is not None
        found = own[int(score["network"]) - 1].masks(image)["lungs"]
        assert score["dice"] == pytest.approx(dice(found, masks["lungs"]))


def test_an_interrupted_run_goes_on(films: Manifest, tmp_path: Path) -> None:
    config, run = tiny_organs(image_size=32), tmp_path / "run"
    with pytest.raises(Interrupted, match=r"the last whole epoch is saved in .*checkpoints; go on with --resume"):
        train_segmenter(films, config, run, progress=stop_after(16 + 4))
    assert not (run / "reader").exists()
    seen: list[int] = []
    train_segmenter(
        films, config, run, resume=True, progress=lambda s, d, _: seen.append(d) if s == "training" else None
    )
    assert (seen[0], seen[-1]) == (16 + 4, 2 * 16)
    assert load_segmenter(run).organs == ("lungs",)


def test_a_run_is_never_overwritten_and_only_its_own_kind_goes_on(films: Manifest, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UsageError, match=r"expected a run to resume in .*run, got none; start it without --resume"):
        train_segmenter(films, tiny_organs(), run, resume=True)
    run.mkdir()
    (run / "config.toml").write_text('mode = "finetune"\n')
    with pytest.raises(UsageError, match=r"expected a new run folder .*run, got one that exists"):
        train_segmenter(films, tiny_organs(), run)
    with pytest.raises(UsageError, match=r"expected settings of `wetread train` in config\.toml, got 'mode'"):
        train_segmenter(films, tiny_organs(), run, resume=True)
    assert (run / "config.toml").read_text() == 'mode = "finetune"\n'


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": "dise"}, UsageError, "expected the name of a segmentation loss, got 'dise'; use 'dice'"),
        (
            {"encoder": "resnet33"},
            UsageError,
            "expected the name of a timm network, .*, got 'resnet33'; try .*resnet34",
        ),
        ({"encoder": "vit_tiny_patch16_224"}, UsageError, "expected an encoder with five steps of maps"),
        (
            {"encoder": "swin_tiny_patch4_window7_224"},
            UsageError,
            "expected an encoder for images of 64x64, got swin_tiny_patch4_window7_224; use a convolutional one",
        ),
        ({"augment": "strong"}, UsageError, "expected one of the recipes none, .*, got 'strong'"),
        ({"image_size": 100}, UsageError, "expected an image size that is a multiple of 32, got 100x100"),
        ({"organs": ("spleen",)}, DatasetRefused, "expected masks of spleen, got the mask columns mask, "),
        ({"weights": "net.pth"}, BundleRefused, r"expected a \.safetensors file or a folder with one"),
        ({"folds": 1}, UsageError, "expected at least 2 folds, got 1"),
        (
            {"organs": ("lungs", "lung_left"), "exclusive": True},
            DatasetRefused,
            "expected exclusive masks without a common pixel, got .* shared by lungs and lung_left in .*; mend",
        ),
    ],
)
def test_a_mistake_is_found_before_training_and_leaves_nothing(
    films: Manifest, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    seen: list[str] = []
    with pytest.raises(error, match=message):
        train_segmenter(films, tiny_organs(**changes), tmp_path / "run", progress=lambda stage, *_: seen.append(stage))
    assert "training" not in seen
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("split", "gone"), [(None, "train"), ("train", "val")])
def test_a_data_set_without_a_split_says_how_to_make_one(
    films: Manifest, tmp_path: Path, split: str | None, gone: str
) -> None:
    undivided = films.with_table(films.table.assign(split=split), split=None)
    message = f"expected images with masks in the split '{gone}', got none; run `wetread dataset split` first, or use"
    with pytest.raises(SplitRefused, match=message):
        train_segmenter(undivided, tiny_organs(), tmp_path / "run")


def test_a_split_that_leaks_is_refused(films: Manifest, tmp_path: Path) -> None:
    patient = films.table.loc[films.table["split"] == "val", "patient"].iloc[0]
    table = films.table.copy()
    table.loc[table.index[table["split"] == "train"][0], "patient"] = patient
    with pytest.raises(SplitRefused, match="expected every patient, study and image in one split, got 1 patients"):
        train_segmenter(films.with_table(table), tiny_organs(), tmp_path / "run")


def test_organs_that_exclude_each_other_are_trained(films: Manifest, tmp_path: Path) -> None:
    config = tiny_organs(organs=("lung_left", "lung_right"), exclusive=True)
    result = train_segmenter(films, config, tmp_path / "run")
    first, last = column(result.run_folder, "train_loss")
    assert last < first
    assert result.card.exclusive
    segmenter = load_segmenter(result.run_folder)
    assert segmenter.card.exclusive
    image, _ = load_annotated(films, films.table.iloc[0], ())
    maps = segmenter.maps(image)
    assert (maps["lung_left"] + maps["lung_right"]).max() <= 1 + 1e-5


def test_a_network_without_an_encoder_starts_at_random(films: Manifest, tmp_path: Path) -> None:
    config = tiny_organs(**QUICK, network="residual-unet")
    card = train_segmenter(films, config, tmp_path / "run").card
    assert (card.encoder, card.decoder) == (None, ())
    assert card.training["start"] == {"weights": "random"}
    assert load_segmenter(tmp_path / "run").card == card


@pytest.mark.parametrize(
    ("organs", "message"),
    [
        ((), r"expected a valid organs, got .*; .*at least 1 item"),
        (("lungs", "lungs"), r"expected a valid organs, got .*; .*name each organ once"),
    ],
)
def test_organs_are_named_and_each_once(organs: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_of(SegmentConfig, {"organs": organs})


def test_scores_need_masks_of_the_organs(run: SegmentResult, films: Manifest) -> None:
    segmenter = load_segmenter(run.run_folder)
    bare = films.table.assign(mask=None, mask_heart=None)
    with pytest.raises(DatasetRefused, match="expected images with masks of lungs, heart, got none; import the masks"):
        score_images(segmenter, films.with_table(bare), bare)
    hearts = films.table.assign(mask=None).head(2)
    scores = score_images(segmenter, films.with_table(hearts), hearts, look=lambda organ, mask: (organ, "odd"))
    assert set(scores["organ"]) == {"heart"}
    assert set(scores["flags"]) == {"heart, odd"}


def test_distances_are_averaged_within_their_unit() -> None:
    rows = [
        {"path": f"{n}.png", "patient": None, "organ": "lungs", "dice": 0.5, "iou": 1 / 3, "unit": unit}
        | {"hd95": distance, "average_distance": distance}
        for n, (unit, distance) in enumerate([("mm", 2.0), ("mm", 4.0), ("px", 30.0), ("px", None)])
    ]
    found = {row.name: row.estimate for row in mean_overlaps(pd.DataFrame(rows), "test")}
    assert set(found) == {
        *("dice lungs", "iou lungs", "hd95 lungs (mm)", "hd95 lungs (px)"),
        *("average_distance lungs (mm)", "average_distance lungs (px)"),
    }
    assert (found["hd95 lungs (mm)"].value, found["hd95 lungs (mm)"].n) == (3.0, 2)
    assert (found["hd95 lungs (px)"].value, found["hd95 lungs (px)"].n) == (30.0, 1)
    assert "1 of 2 not defined and left out" in (found["hd95 lungs (px)"].note or "")
    assert found["dice lungs"].n == 4
