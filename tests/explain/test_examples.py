"""Cases like this: other patients, nearest first, with their labels; what the set cannot give is said."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as PilImage

from tests.models.support import reader_of
from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, UsageError
from wetread.explain.examples import case_set, similar_cases
from wetread.imaging import load_image
from wetread.models.card import InputSpec
from wetread.models.networks import Network, PixelEncoder
from wetread.models.predict import Reader
from wetread.types import Image, Task

SIDE = 32


@pytest.fixture
def reader() -> Reader:
    """Its embedding is the image itself, 32 x 32 grey values."""
    from torch import nn

    network = Network(PixelEncoder(), nn.Linear(SIDE * SIDE, 1), spatial=False)
    spec = InputSpec(height=SIDE, width=SIDE, fit="stretch", channels=1, standardise="fixed", mean=0.0, std=1.0)
    return reader_of([network], input=spec)


def write(folder: Path, name: str, angle_degrees: float) -> str:
    """An image with one part of its weight in the left half and the other in the right: two dimensions in all."""
    picture = np.zeros((SIDE, SIDE))
    picture[:, : SIDE // 2] = np.cos(np.deg2rad(angle_degrees))
    picture[:, SIDE // 2 :] = np.sin(np.deg2rad(angle_degrees))
    folder.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray((picture * 255).round().astype(np.uint8)).save(folder / name)
    return name


def manifest(folder: Path, task: Task = "binary", **columns: object) -> Manifest:
    """Eight images at 0, 10 ... 70 degrees; patient p0 has the first two; ill from 40 degrees on."""
    paths = [write(folder, f"{i}.png", 10 * i) for i in range(8)]
    table = pd.DataFrame(
        {
            "path": paths,
            "patient": ["p0", "p0", "p2", "p3", "p4", "p5", "p6", "p7"],
            "label": ["normal"] * 4 + ["ill"] * 4,
            "split": ["train"] * 6 + ["test"] * 2,
            **columns,
        }
    )
    return Manifest(table, DatasetMeta(name="set", task=task, classes=("normal", "ill")), folder)


def asked(tmp_path: Path, angle_degrees: float) -> Image:
    return load_image(tmp_path / write(tmp_path, "asked.png", angle_degrees))


def test_the_nearest_come_first_with_labels_and_their_angle(reader: Reader, tmp_path: Path) -> None:
    (found,) = similar_cases(reader, [asked(tmp_path, 42)], manifest(tmp_path / "set"), 3)
    assert [example.path for example in found] == ["4.png", "5.png", "3.png"]
    assert [example.labels for example in found] == [("ill",), ("ill",), ("normal",)]
    assert [(example.rank, example.patient, example.split) for example in found[:2]] == [
        (1, "p4", "train"),
        (2, "p5", "train"),
    ]
    for example, degrees in zip(found, (2, 8, 12), strict=True):
        assert example.distance == pytest.approx(1 - np.cos(np.deg2rad(degrees)), abs=1e-3)


def test_a_patient_is_named_once(reader: Reader, tmp_path: Path) -> None:
    """At 4 degrees both images of p0 are the nearest; only the nearer one counts."""
    (found,) = similar_cases(reader, [asked(tmp_path, 4)], manifest(tmp_path / "set"), 3)
    assert [example.path for example in found] == ["0.png", "2.png", "3.png"]


def test_the_patient_of_the_image_is_left_out_and_that_is_said(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = manifest(tmp_path / "set")
    image = load_image(tmp_path / "set" / "1.png")
    with caplog.at_level(logging.WARNING):
        (found,) = similar_cases(reader, [image], cases, 2)
    assert [example.path for example in found] == ["2.png", "3.png"]  # neither itself nor 0.png of the same patient
    assert "1.png is itself in set: its patient was left out" in caplog.text


def test_shares_are_of_the_cases_with_known_labels(reader: Reader, tmp_path: Path) -> None:
    labels = ["normal"] * 4 + ["ill", None, "ill", "ill"]
    cases = case_set(reader, manifest(tmp_path / "set", label=labels))
    image = asked(tmp_path, 46)
    embedding = reader.forward(reader.prepare([image])).embeddings.numpy()[0]
    found = cases.nearest(image.facts.name, image.facts.sha256, embedding, 4)
    assert [example.path for example in found.examples] == ["5.png", "4.png", "6.png", "3.png"]
    assert found.examples[0].labels is None
    assert found.shares == {"normal": pytest.approx(1 / 3), "ill": pytest.approx(2 / 3)}
    assert found.warnings == ()


def test_several_labels_of_one_image(reader: Reader, tmp_path: Path) -> None:
    normal, ill = [0, 0, 0, 0, 1, 0, None, None], [1, 1, 1, 1, 1, 0, None, 1]
    cases = case_set(reader, manifest(tmp_path / "set", "multilabel", label_normal=normal, label_ill=ill))
    image = asked(tmp_path, 55)
    embedding = reader.forward(reader.prepare([image])).embeddings.numpy()[0]
    found = cases.nearest("asked", "0" * 64, embedding, 4)
    assert {example.path: example.labels for example in found.examples} == {
        "4.png": ("normal", "ill"),
        "5.png": (),
        "6.png": None,
        "7.png": ("ill",),
    }
    assert found.shares == {"normal": pytest.approx(1 / 3), "ill": pytest.approx(2 / 3)}


def test_a_copy_under_another_name_and_too_few_patients_are_said(reader: Reader, tmp_path: Path) -> None:
    cases = case_set(reader, manifest(tmp_path / "set"))
    image = asked(tmp_path, 30)
    embedding = reader.forward(reader.prepare([image])).embeddings.numpy()[0]
    found = cases.nearest("asked.png", "0" * 64, embedding, 20)
    assert len(found.examples) == 7  # patients
    assert found.warnings == (
        "asked.png looks the same to the reader as 3.png, which may be a copy of it",
        "set holds only 7 other patients",
    )


def test_a_set_without_other_patients_without_labels_or_with_a_wrong_number_is_refused(
    reader: Reader, tmp_path: Path
) -> None:
    whole = manifest(tmp_path / "set")
    image = load_image(tmp_path / "set" / "0.png")
    with pytest.raises(DatasetRefused, match="expected images of other patients, got none in set; name a larger"):
        similar_cases(reader, [image], whole.with_table(whole.table.iloc[:2]), 1)
    with pytest.raises(DatasetRefused, match="expected at least one image, got an empty table"):
        similar_cases(reader, [image], whole.with_table(whole.table.iloc[:0]), 1)
    with pytest.raises(DatasetRefused, match="expected a labelled data set, got no classes"):
        similar_cases(reader, [image], whole.with_table(whole.table.drop(columns="label"), classes=()), 1)
    with pytest.raises(UsageError, match="expected at least 1 case, got 0"):
        similar_cases(reader, [image], whole, 0)


def test_embeddings_are_stored_and_found_again(reader: Reader, tmp_path: Path) -> None:
    stages: list[str] = []
    whole = manifest(tmp_path / "set")
    first = case_set(reader, whole, tmp_path / "cache", lambda stage, done, total: stages.append(stage))
    assert set(stages) == {"decoding images", "computing features"}
    stages.clear()
    again = case_set(reader, whole, tmp_path / "cache", lambda stage, done, total: stages.append(stage))
    assert stages == []
    np.testing.assert_array_equal(first.embeddings, again.embeddings)


def test_many_images_have_the_answers_of_each_alone(reader: Reader, tmp_path: Path) -> None:
    whole = manifest(tmp_path / "set")
    images = [load_image(tmp_path / write(tmp_path, f"{i}.png", 3 + 7 * i)) for i in range(10)]
    together = similar_cases(reader, images, whole, 2)
    assert together[7] == similar_cases(reader, [images[7]], whole, 2)[0]
    assert together[9] == similar_cases(reader, [images[9]], whole, 2)[0]
