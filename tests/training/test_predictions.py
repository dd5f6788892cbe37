"""Predictions on a manifest: the same as image by image, and refused where they would mislead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.models.support import small_reader
from tests.training.support import relabelled
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, SplitRefused
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import EvaluationSpec
from wetread.imaging import load_image
from wetread.models.card import GateSpec
from wetread.models.outlier import fit_statistics
from wetread.models.predict import Reader
from wetread.training.predictions import predict_manifest

ROUNDED = 2e-6
"""Pixels are rounded to uint16 on the way (8e-6 at most, z-scored by a deviation near .2): the largest
difference between a table and a reading of the same image that these networks showed is below this."""


def reader_for(manifest: Manifest, size: int = 32) -> Reader:
    meta = manifest.meta
    labels = meta.classes[1:] if meta.task == "binary" else meta.classes
    return small_reader("cnn", size, labels, task=meta.task, classes=meta.classes)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_the_table_says_what_the_reader_says(phantoms: Manifest, task: str) -> None:
    manifest = relabelled(phantoms, task, unknown=True)  # type: ignore[arg-type]
    reader = reader_for(manifest)
    table = predict_manifest(reader, manifest, "test")
    rows = manifest.table[manifest.table["split"] == "test"]
    assert table["image"].tolist() == rows["path"].tolist()
    assert set(table["split"]) == {"test"}
    batch = reader.prepare([load_image(manifest.path_of(path)) for path in rows["path"]])
    columns = [f"probability_{label}" for label in reader.labels]
    found = table[columns].to_numpy()
    np.testing.assert_allclose(found, reader.probabilities(reader.forward(batch)), atol=ROUNDED)
    if task == "multilabel":
        for label in reader.labels:
            np.testing.assert_array_equal(table[f"target_{label}"], rows[f"label_{label}"].astype("float32"))
    else:
        pd.testing.assert_series_equal(
            table["target"], rows["label"].reset_index(drop=True), check_names=False, check_dtype=False
        )
    spec = EvaluationSpec(task=manifest.meta.task, classes=manifest.meta.classes, resamples=200)
    known = rows["label"].notna().sum() if task != "multilabel" else len(rows)
    assert evaluate(table, spec, manifest=manifest).facts.n == known


def test_the_order_and_the_batch_change_nothing(binary: Manifest) -> None:
    reader = reader_for(binary)
    together = predict_manifest(reader, binary, None).set_index("image")["probability_ill"]
    assert len(together) == len(binary.table)
    one = predict_manifest(reader, binary, "val").set_index("image")["probability_ill"]
    np.testing.assert_allclose(one, together[one.index], atol=1e-6)


def test_without_a_split_each_image_keeps_its_own(binary: Manifest) -> None:
    table = predict_manifest(reader_for(binary), binary, None)
    assert table["split"].tolist() == binary.table["split"].tolist()


def test_gated_images_keep_their_probability_and_are_marked(binary: Manifest) -> None:
    plain = reader_for(binary)
    first = predict_manifest(plain, binary, None)
    assert "gated" not in first.columns
    batch = plain.prepare([load_image(binary.path_of(path)) for path in first["image"]])
    embedded = plain.forward(batch).embeddings.numpy()
    statistics = fit_statistics(embedded, 8)
    distances = statistics.distances(embedded)
    gate = GateSpec(limit=float(np.median(distances)), quantile=0.5, n=len(distances), components=8)
    reader = Reader(plain.card.model_copy(update={"gate": gate}), plain.networks, statistics)
    table = predict_manifest(reader, binary, None)
    np.testing.assert_allclose(table["gate_distance"], distances, rtol=1e-3)
    assert table["gated"].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(table["probability_ill"], first["probability_ill"], atol=1e-9)


def test_more_views_are_an_average_of_zooms(binary: Manifest) -> None:
    reader = reader_for(binary)
    one, three = (predict_manifest(reader, binary, "val", views=views)["probability_ill"] for views in (1, 3))
    assert not np.allclose(one, three)
    batch = reader.prepare([load_image(binary.path_of(binary.table[binary.table["split"] == "val"]["path"].iloc[0]))])
    assert three[0] == pytest.approx(reader.probabilities(reader.forward(batch, 3))[0, 0], abs=ROUNDED)


def test_a_leak_is_refused(binary: Manifest) -> None:
    table = binary.table.copy()
    table.loc[table.index[table["split"] == "test"][0], "patient"] = table[table["split"] == "train"]["patient"].iloc[0]
    with pytest.raises(SplitRefused, match="expected every patient, study and image in one split, got 1 patients"):
        predict_manifest(reader_for(binary), binary.with_table(table, split=None))


def test_an_empty_split_is_refused(binary: Manifest) -> None:
    table = binary.table.assign(split="train")
    with pytest.raises(SplitRefused, match="expected images in the split 'test', got none; name another --split"):
        predict_manifest(reader_for(binary), binary.with_table(table, split=None))


def test_other_classes_are_refused(binary: Manifest, phantoms: Manifest) -> None:
    other = small_reader("cnn", 32, ("tuberculosis",))
    with pytest.raises(
        DatasetRefused, match=r"expected .* the reader's classes normal, tuberculosis, got normal, ill;"
    ):
        predict_manifest(other, binary)
    with pytest.raises(DatasetRefused, match="expected a binary data set, got a multiclass one; map the labels"):
        predict_manifest(reader_for(binary), relabelled(phantoms, "multiclass"))


def test_the_same_classes_for_another_task_are_refused(phantoms: Manifest) -> None:
    """Exclusive classes and independent labels of one name are other questions."""
    several = relabelled(phantoms, "multilabel")
    reader = small_reader("cnn", 32, several.meta.classes)
    assert reader.card.task == "multiclass"
    with pytest.raises(DatasetRefused, match="expected a multiclass data set, got a multilabel one"):
        predict_manifest(reader, several)


def test_images_without_labels_are_refused_at_once(binary: Manifest) -> None:
    bare = binary.with_table(binary.table.assign(label=None), classes=())
    seen: list[str] = []
    with pytest.raises(DatasetRefused, match="expected a labelled data set, got no classes"):
        predict_manifest(reader_for(binary), bare, progress=lambda stage, *_: seen.append(stage))
    assert seen == []


def test_an_unreadable_image_is_refused_by_name(binary: Manifest, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(DatasetRefused, match=r"expected \d+ readable images, got one that is not: .*\.png"):
        predict_manifest(reader_for(binary), replace(binary, folder=tmp_path))


def test_the_cache_of_training_serves_predictions(
    binary: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_for(binary)
    first = predict_manifest(reader, binary, "val", cache=tmp_path)
    monkeypatch.setattr("wetread.training.data.load_image", None)
    pd.testing.assert_frame_equal(predict_manifest(reader, binary, "val", cache=tmp_path), first)
