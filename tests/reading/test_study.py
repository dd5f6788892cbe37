"""Reading a study: files gathered, images left out and named, weights, heat maps, and an order that changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image as PilImage

from tests.models.support import card_for
from wetread.datasets.phantoms import Identity, render, sample_spec, write_dicom, write_png
from wetread.errors import ImageRefused, UsageError
from wetread.models.backbones import make_encoder
from wetread.models.card import GateSpec, HeadSpec, InputSpec, ReaderCard, StudySpec
from wetread.models.mil import StudyReader, build_study_network
from wetread.models.predict import Reader
from wetread.reading.study import HEAT_MAPS, StudyOptions, StudySource, read_study, study_sources

SPEC = StudySpec(hidden=16, attention=8)


def reader_of(spec: StudySpec = SPEC, gate: GateSpec | None = None) -> StudyReader:
    torch.manual_seed(0)
    size = InputSpec(height=64, width=64)
    network = build_study_network(("cnn", spec), make_encoder("cnn", size), 2, dropout=0.0)
    torch.nn.init.normal_(network.head.classifier.weight)  # type: ignore[union-attr, arg-type]
    torch.nn.init.normal_(network.pool.score.weight)
    card: ReaderCard = card_for(
        ("calm", "ill"), task="multilabel", input=size, head=HeadSpec(), study=spec, gate=gate, temperature=1.5
    ).model_copy(update={"weights": {"model.safetensors": "0" * 64}})
    return StudyReader(Reader(card, [network]))


def films(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        write_png(render(sample_spec(rng, size_px=96)), folder / f"view{number}.png")
    return folder


def only(folder: Path) -> StudySource:
    (study,) = study_sources([folder])
    return study


def test_the_answer_is_the_pooling_of_the_views(tmp_path: Path) -> None:
    reader, study = reader_of(), only(films(tmp_path / "study", 4))
    read = read_study(reader, study, StudyOptions(heatmaps=False)).read
    assert read.study == "study"
    assert [view.image.name for view in read.views] == [f"view{number}.png" for number in range(4)]
    for label in ("calm", "ill"):
        weights = np.array([view.weights[label] for view in read.views])
        assert weights.sum() == pytest.approx(1, abs=1e-6)
        alone = np.array([view.alone[label] for view in read.views])
        logit = (weights * np.log(alone / (1 - alone))).sum()  # attention is a weighted mean of logits
        probability = next(one.probability for one in read.labels if one.label == label)
        assert probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
        assert read.drove[label] == read.views[int(weights.argmax())].image.name


def test_order_changes_nothing_and_a_study_of_one_view_is_that_view(tmp_path: Path) -> None:
    reader, study = reader_of(), only(films(tmp_path / "study", 5))
    turned = StudySource(study.name, tuple(reversed(study.sources)))
    options = StudyOptions(heatmaps=False)
    one, other = (read_study(reader, given, options).read for given in (study, turned))
    assert [label.probability for label in one.labels] == pytest.approx([label.probability for label in other.labels])
    weights = {view.image.name: view.weights["ill"] for view in other.views}
    assert [view.weights["ill"] for view in one.views] == pytest.approx([weights[v.image.name] for v in one.views])
    single = read_study(reader, StudySource("one", study.sources[:1]), options).read
    assert single.labels[1].probability == pytest.approx(one.views[0].alone["ill"], abs=1e-6)


def test_heat_maps_are_those_of_the_views_and_pictures_come_when_asked_for(tmp_path: Path) -> None:
    reader, study = reader_of(), only(films(tmp_path / "study", 3))
    result = read_study(reader, study, StudyOptions(pictures=True))
    explained = [view for view in result.read.views if view.evidence]
    assert len(explained) == 3
    made = [
        (view.image.name, label) for view in explained for label, one in view.evidence.items() if one.status == "made"
    ]
    assert set(result.heatmaps) == set(made)
    assert set(result.films) == {view.image.name for view in explained}


def test_a_large_study_gets_heat_maps_for_the_heaviest_views_and_says_so(tmp_path: Path) -> None:
    folder = films(tmp_path / "study", 2)
    for number in range(HEAT_MAPS + 2):
        pixels = np.asarray(PilImage.open(folder / f"view{number % 2}.png")).copy()
        pixels[: 4 + number] //= 2
        PilImage.fromarray(pixels).save(folder / f"more{number:02d}.png")
    read = read_study(reader_of(), only(folder)).read
    explained = {view.image.name for view in read.views if view.evidence}
    labels = {label for view in read.views for label in view.evidence}
    ranked = sorted(read.views, key=lambda view: -max(view.weights[label] for label in labels))
    assert explained == {view.image.name for view in ranked[:HEAT_MAPS]}
    assert read.warnings == (f"Heat maps were made for the 16 images of highest weight among {HEAT_MAPS + 4}.",)


def test_an_image_that_the_gate_refuses_does_not_count(tmp_path: Path) -> None:
    folder = films(tmp_path / "study", 2)
    reader, options = reader_of(), StudyOptions(heatmaps=False)
    before = read_study(reader, only(folder), options).read
    PilImage.new("L", (96, 96), 200).save(folder / "zblank.png")
    read = read_study(reader, only(folder), options).read
    assert [label.probability for label in read.labels] == [label.probability for label in before.labels]
    assert not read.views[2].gate.passed
    assert read.views[2].weights == {}
    assert read.warnings == ("1 of 3 images were refused by the gate and did not count.",)


def test_a_study_that_the_gate_refuses_whole_has_no_probability(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    PilImage.new("L", (96, 96), 200).save(tmp_path / "study" / "blank.png")
    read = read_study(reader_of(), only(tmp_path / "study")).read
    assert not read.answered
    assert {label.decision for label in read.labels} == {"withheld"}
    assert read.drove == {}


def test_a_file_that_cannot_be_read_is_named_and_none_that_can_is_an_error(tmp_path: Path) -> None:
    folder = films(tmp_path / "study", 1)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    read = read_study(reader_of(), only(folder), StudyOptions(heatmaps=False)).read
    assert list(read.failures) == ["broken.png"]
    assert read.warnings == ("1 of 2 images could not be read and did not count.",)
    (folder / "view0.png").unlink()
    with pytest.raises(ImageRefused, match=r"expected a readable image in the study study, got 1 that are not: "):
        read_study(reader_of(), only(folder))


def test_dicom_files_are_gathered_by_study_and_pictures_by_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, who in (("a", Identity("0001", 1)), ("b", Identity("0001", 1)), ("c", Identity("0002", 1))):
        write_dicom(render(sample_spec(rng, size_px=64)), tmp_path / f"{name}.dcm", who)
    second = pydicom.dcmread(tmp_path / "b.dcm")
    second.StudyInstanceUID = pydicom.dcmread(tmp_path / "a.dcm").StudyInstanceUID
    second.save_as(tmp_path / "b.dcm")
    films(tmp_path / "one", 2)
    films(tmp_path / "two", 1)
    found = study_sources([tmp_path])
    by_names = {tuple(source.path.name for source in study.sources): study for study in found}
    assert set(by_names) == {("a.dcm", "b.dcm"), ("c.dcm",), ("view0.png", "view1.png"), ("view0.png",)}
    assert by_names[("a.dcm", "b.dcm")].study_uid is not None
    assert by_names[("view0.png", "view1.png")].name == "one"


def test_each_view_is_read_by_the_layer_of_its_position(tmp_path: Path) -> None:
    reader = reader_of(SPEC.model_copy(update={"positions": ("AP", "PA")}))
    rng = np.random.default_rng(1)
    write_dicom(render(sample_spec(rng, size_px=64)), tmp_path / "a.dcm", Identity("0001", 1))
    read = read_study(reader, only(tmp_path), StudyOptions(heatmaps=False)).read
    view = read.views[0].image.view
    assert view in ("AP", "PA")
    from wetread.imaging import load_image

    one = reader.reader_of_view(view)
    logits = one.forward(one.prepare([load_image(tmp_path / "a.dcm")]), 1)
    assert one.probabilities(logits)[0, 1] == pytest.approx(read.views[0].alone["ill"], abs=1e-6)


def test_methods_that_run_the_network_again_are_refused(tmp_path: Path) -> None:
    study = only(films(tmp_path / "study", 1))
    with pytest.raises(UsageError, match=r"expected a method among .*gradcam.* for a study, got rise; use --method"):
        read_study(reader_of(), study, StudyOptions(method="rise"))
