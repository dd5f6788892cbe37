"""From films to an index and back: embeddings, what is left out, studies, places, the vote, contradictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.models.support import reader_of, small_reader
from tests.retrieval.support import SIDE, angle_reader, head_of, manifest_of, rows_of, write_film
from wetread.errors import DatasetRefused, UsageError
from wetread.imaging import load_image
from wetread.models.networks import Network
from wetread.models.predict import Reader
from wetread.retrieval.cases import EmbedPlan, cases_of
from wetread.retrieval.embed import box_of_place, embed_files, embed_image, mark_of, places_in
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.neighbours import disagreements, similar_cases
from wetread.retrieval.records import Neighbours, SearchOptions, unit
from wetread.retrieval.where import parse_where
from wetread.retrieval.write import build_index
from wetread.types import Answer, Box


@pytest.fixture
def reader() -> Reader:
    return angle_reader()


def built(reader: Reader, folder: Path, plan: EmbedPlan | None = None, **columns: object) -> FolderIndex:
    cases = cases_of(reader, manifest_of(folder / "films", **columns), plan or EmbedPlan())  # type: ignore[arg-type]
    build_index(folder / "cases", cases.head, cases.rows, cases.vectors)
    return FolderIndex(folder / "cases")


def like(
    index: FolderIndex, reader: Reader, file: Path, k: int = 3, options: SearchOptions | None = None
) -> Neighbours:
    image = load_image(file)
    facts = image.facts
    return similar_cases(index, embed_image(reader, image), sha256=facts.sha256, image=facts.name, k=k, options=options)


def test_a_new_film_is_answered_with_paths_labels_and_a_vote(reader: Reader, tmp_path: Path) -> None:
    index = built(reader, tmp_path)
    found = like(index, reader, write_film(tmp_path / "asked.png", 42))
    assert [(one.path, one.labels, one.patient) for one in found.neighbours] == [
        ("4.png", ("ill",), "p4"),
        ("5.png", ("ill",), "p5"),
        ("3.png", ("normal",), "p3"),
    ]
    assert Path(found.neighbours[0].file) == tmp_path / "films" / "4.png"
    assert found.neighbours[0].distance == pytest.approx(1 - np.cos(np.deg2rad(2)), abs=1e-3)
    assert found.neighbours[0].facts == {"age": "50"}
    weights = np.array([1 - one.distance for one in found.neighbours])
    vote = found.vote["ill"]
    assert (vote.positive, vote.known) == (2, 3)
    assert vote.share == pytest.approx((weights[0] + weights[1] + 0.5) / (weights.sum() + 1))
    assert found.warnings == (
        "the patient of asked.png is not known: other images of the same patient cannot be left out",
    )


def test_a_film_of_the_index_is_known_by_its_content_and_its_patient_left_out(reader: Reader, tmp_path: Path) -> None:
    index = built(reader, tmp_path)
    copy = tmp_path / "other name.png"
    copy.write_bytes((tmp_path / "films" / "1.png").read_bytes())
    found = like(index, reader, copy)
    assert [one.path for one in found.neighbours] == ["2.png", "3.png", "4.png"]
    assert (found.left_out, found.warnings) == (2, ("the patient of other name.png is in cases: 2 rows left out",))


def test_a_copy_and_too_few_cases_are_said(reader: Reader, tmp_path: Path) -> None:
    index = built(reader, tmp_path)
    image = load_image(write_film(tmp_path / "asked.png", 30))
    found = similar_cases(index, embed_image(reader, image), patient="new", image="asked.png", k=20)
    assert len(found.neighbours) == 7
    assert found.warnings == (
        "asked.png looks the same to the reader as the nearest case, which may be a copy of it",
        "cases holds only 7 other patients, 20 were asked for",
    )
    options = SearchOptions(parse_where("patient=p0"))
    with pytest.raises(
        DatasetRefused, match=r"expected cases of other patients, got none like asked.png; widen --where"
    ):
        similar_cases(index, embed_image(reader, image), patient="p0", image="asked.png", options=options)


def test_unknown_labels_do_not_vote(reader: Reader, tmp_path: Path) -> None:
    index = built(reader, tmp_path, label=["normal"] * 4 + ["ill", None, "ill", "ill"])
    found = like(index, reader, write_film(tmp_path / "asked.png", 46), 4)
    assert [one.labels for one in found.neighbours] == [None, ("ill",), ("ill",), ("normal",)]
    assert (found.vote["ill"].positive, found.vote["ill"].known) == (2, 3)


def test_several_labels_of_one_film(reader: Reader, tmp_path: Path) -> None:
    normal, ill = [0, 0, 0, 0, 1, 0, None, None], [1, 1, 1, 1, 1, 0, None, 1]
    index = built(reader, tmp_path, task="multilabel", label_normal=normal, label_ill=ill)
    found = like(index, reader, write_film(tmp_path / "asked.png", 55), 4)
    assert {one.path: one.labels for one in found.neighbours} == {
        "4.png": ("normal", "ill"),
        "5.png": (),
        "6.png": None,
        "7.png": ("ill",),
    }
    assert {name: (vote.positive, vote.known) for name, vote in found.vote.items()} == {"normal": (1, 3), "ill": (2, 3)}


@pytest.mark.parametrize(
    ("degrees", "answer", "sentences"),
    [
        (68, "negative", ("The classifier calls ill negative; 4 of the 4 most similar cases have it.",)),
        (68, "positive", ()),
        (2, "positive", ("The classifier calls ill positive; 1 of the 4 most similar cases have it.",)),
    ],
)
def test_a_vote_against_the_classifier_is_said(
    reader: Reader, tmp_path: Path, degrees: float, answer: Answer, sentences: tuple[str, ...]
) -> None:
    index = built(reader, tmp_path)
    found = like(index, reader, write_film(tmp_path / "asked.png", degrees), 4)
    assert disagreements(found, {"ill": answer, "not in the index": "positive"}) == sentences
    few = like(index, reader, tmp_path / "asked.png", 2)
    assert disagreements(few, {"ill": answer}) == ()  # two cases contradict nobody


def test_films_that_cannot_be_read_are_listed_and_left_out(reader: Reader, tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path / "films")
    (tmp_path / "films" / "2.png").write_bytes(b"no image")
    (tmp_path / "films" / "5.png").unlink()
    cases = cases_of(reader, manifest, EmbedPlan())
    assert cases.rows["path"].tolist() == ["0.png", "1.png", "3.png", "4.png", "6.png", "7.png"]
    assert [Path(one.path).name for one in cases.skipped] == ["2.png", "5.png"]
    assert "expected a DICOM, PNG, JPEG or TIFF image" in cases.skipped[0].reason
    assert "expected a readable file, got 'No such file or directory'" in cases.skipped[1].reason
    only = manifest.with_table(manifest.table.iloc[[2]])
    with pytest.raises(
        DatasetRefused, match=r"expected at least one of 1 images that can be read, got none: expected a"
    ):
        cases_of(reader, only, EmbedPlan())
    with pytest.raises(DatasetRefused, match="expected images that fit --where, got none; widen the condition"):
        cases_of(reader, manifest, EmbedPlan(where=parse_where("label=none")))


def test_an_embedding_that_is_not_finite_is_listed_and_left_out(tmp_path: Path) -> None:
    broken = angle_reader()

    class Nan(torch.nn.Module):
        num_features = head_hidden_size = SIDE * SIDE

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            return torch.where(flat[:, :1] > 0.9, torch.nan, flat)

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return x

    broken.networks[0].encoder = Nan()
    cases = cases_of(broken, manifest_of(tmp_path), EmbedPlan())
    assert [Path(one.path).name for one in cases.skipped] == ["0.png", "1.png", "2.png"]  # cos 20 degrees is 0.94
    assert cases.skipped[0].reason == "expected a finite embedding, got NaN or infinity; check the reader's weights"
    assert np.isfinite(cases.vectors).all()


def test_embeddings_are_those_of_the_reader_and_are_kept(tmp_path: Path) -> None:
    reader = small_reader("cnn", weights={"model.safetensors": "2" * 64})
    manifest = manifest_of(tmp_path / "films")
    files = [manifest.path_of(str(name)) for name in manifest.table["path"]]
    calls: list[int] = []
    made = embed_files(reader, files, cache=tmp_path / "cache", progress=lambda _, done, total: calls.append(total))
    images = [load_image(file) for file in files]
    wanted = unit(reader.forward(reader.prepare(images), views=1).embeddings.numpy())
    np.testing.assert_allclose(np.asarray(made.vectors[:, 0], np.float32), wanted, atol=1e-4)
    assert calls
    calls.clear()
    again = embed_files(reader, files, cache=tmp_path / "cache", progress=lambda _, done, total: calls.append(total))
    assert calls == []
    np.testing.assert_array_equal(made.vectors, again.vectors)


def test_the_mark_of_a_reader_changes_with_weights_and_input() -> None:
    one = angle_reader()
    other = angle_reader(weights={"model.safetensors": "3" * 64})
    wide = angle_reader(input=one.input.model_copy(update={"fit": "pad"}))
    recalibrated = angle_reader(temperature=2.0)
    keys = [mark_of(reader).embedding for reader in (one, other, wide)]
    assert len(set(keys)) == 3
    assert mark_of(recalibrated).embedding == keys[0]


def test_a_study_is_the_mean_of_its_films(reader: Reader, tmp_path: Path) -> None:
    study = ["a", "a", "b", "c", None, "a", "d", "d"]
    patient = ["p0", "p0", "p0", "p3", "p4", "p5", "p6", "p6"]
    manifest = manifest_of(tmp_path / "films", study=study, patient=patient)
    cases = cases_of(reader, manifest, EmbedPlan(level="study"))
    rows = cases.rows
    assert rows["path"].tolist() == ["0.png", "2.png", "3.png", "4.png", "5.png", "6.png"]
    assert rows["images"].tolist() == [2, 1, 1, 1, 1, 2]
    assert rows["label"].tolist() == ["normal", "normal", "normal", "ill", "ill", "ill"]
    assert rows["age"].isna().tolist() == [True, False, True, False, False, True]  # 20 and 21 years: not one age
    single = cases_of(reader, manifest, EmbedPlan()).vectors
    np.testing.assert_allclose(cases.vectors[0, 0], unit(single[:2, 0].mean(0)), atol=1e-6)
    build_index(tmp_path / "cases", cases.head, rows, cases.vectors)
    found = like(FolderIndex(tmp_path / "cases"), reader, tmp_path / "films" / "7.png", 2)
    assert [one.path for one in found.neighbours] == ["5.png", "4.png"]  # its own study has its file


def test_a_reader_of_studies_makes_the_embedding_its_own_way(reader: Reader, tmp_path: Path) -> None:
    def first(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(vectors[0])

    reader.study_embedding = first  # type: ignore[attr-defined]
    manifest = manifest_of(tmp_path, study=["a"] * 2 + list("bcdefg"))
    cases = cases_of(reader, manifest, EmbedPlan(level="study"))
    np.testing.assert_allclose(cases.vectors[0], cases_of(reader, manifest, EmbedPlan()).vectors[0], atol=1e-6)


class TestPlaces:
    """A bright spot is found where it is in other films."""

    @pytest.fixture
    def reader(self) -> Reader:
        """Its maps are 4 x 4 tiles of the image, each as it is: nothing outside of a place is seen there."""

        class Tiles(torch.nn.Module):
            num_features = head_hidden_size = 256

            def forward_features(self, x: torch.Tensor) -> torch.Tensor:
                tiles: torch.Tensor = torch.nn.functional.unfold(x, 16, stride=16)
                return tiles.reshape(len(x), -1, 4, 4)

            def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
                return x.mean((2, 3))

        made = angle_reader()
        network = Network(Tiles(), torch.nn.Linear(256, 1))
        spec = made.input.model_copy(update={"height": 64, "width": 64})
        return reader_of([network], input=spec, weights={"model.safetensors": "4" * 64})

    def write(self, folder: Path, corner: int, seed: int) -> Path:
        from PIL import Image as PilImage

        pixels = np.random.default_rng(seed).integers(60, 70, (64, 64), dtype=np.uint8)
        top, left = (corner // 2) * 32, (corner % 2) * 32
        pixels[top : top + 32, left : left + 32] = np.tile([[20, 250], [250, 20]], (16, 16))
        folder.mkdir(exist_ok=True)
        PilImage.fromarray(pixels).save(folder / f"{seed}.png")
        return folder / f"{seed}.png"

    def test_a_region_is_compared_with_every_place(self, reader: Reader, tmp_path: Path) -> None:
        manifest = manifest_of(tmp_path / "films")
        for i in range(8):
            self.write(tmp_path / "films", i % 4, i)
        cases = cases_of(reader, manifest, EmbedPlan(kind="local"))
        assert cases.head.places == (4, 4)
        assert cases.vectors.shape == (8, 16, 256)
        assert cases.vectors.dtype == np.float16
        build_index(tmp_path / "cases", cases.head, cases.rows, cases.vectors)
        index = FolderIndex(tmp_path / "cases")
        image = load_image(self.write(tmp_path, 3, 99))
        region = Box(x=34, y=34, width=28, height=28)
        vectors = embed_image(reader, image, "local", region)
        assert vectors.shape == (4, 256)
        found = similar_cases(index, vectors, patient="new", k=8, options=SearchOptions(once_per_patient=False))
        for one in found.neighbours:
            assert one.place is not None
            box = box_of_place(one.place, index.card, (64, 64))
            corner = int(one.path[0]) % 4
            assert (box.y >= 32, box.x >= 32) == (corner // 2 == 1, corner % 2 == 1)

    def test_a_region_of_whole_images_or_outside_is_refused(self, reader: Reader, tmp_path: Path) -> None:
        image = load_image(self.write(tmp_path, 0, 1))
        with pytest.raises(UsageError, match="expected an index of local embeddings for --region, got one of whole"):
            embed_image(reader, image, "pooled", Box(x=0, y=0, width=1, height=1))
        with pytest.raises(UsageError, match="expected a region inside of 64 x 64 pixels"):
            embed_image(reader, image, "local", Box(x=64, y=0, width=9, height=9))
        with pytest.raises(
            UsageError, match="expected a network with feature maps for --local, got cnn; leave --local"
        ):
            cases_of(angle_reader(), manifest_of(tmp_path / "films"), EmbedPlan(kind="local"))
        with pytest.raises(UsageError, match="expected --local with --level image, got --level study"):
            cases_of(reader, manifest_of(tmp_path / "films"), EmbedPlan(kind="local", level="study"))


def test_places_and_boxes_of_an_image_that_is_padded(tmp_path: Path) -> None:
    """A film of 100 x 50 in a square of 64: it is shown as 64 x 32, with 16 black columns at each side."""
    reader = angle_reader(input=angle_reader().input.model_copy(update={"fit": "pad", "height": 64, "width": 64}))
    head = head_of(input=reader.input, places=(4, 4), kind="local")
    build_index(tmp_path / "cases", head, rows_of(1), np.ones((1, 16, 2), np.float16))
    card = FolderIndex(tmp_path / "cases").card
    box = box_of_place(5, card, (100, 50))  # second row, second column
    assert (box.x, box.y, box.width, box.height) == (0, 25, 25, 25)
    outer = box_of_place(4, card, (100, 50))
    assert outer.width == 0  # that column shows padding alone
    inside = places_in(Box(x=0, y=25, width=25, height=25), (4, 4), (100, 50), reader)
    assert inside.tolist() == [5]
    assert places_in(Box(x=1, y=26, width=2, height=2), (4, 4), (100, 50), reader).tolist() == [5]


def test_pandas_keeps_rows_and_vectors_together(reader: Reader, tmp_path: Path) -> None:
    index = built(reader, tmp_path, EmbedPlan(where=parse_where("split=test")))
    table = index.table([0, 1])
    assert isinstance(table, pd.DataFrame)
    assert table["path"].tolist() == ["6.png", "7.png"]
    assert index.vectors.take(np.array([1]))[0, 0, -1] > index.vectors.take(np.array([0]))[0, 0, -1]
