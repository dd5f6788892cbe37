"""Past cases beside a reading: whose they are, what contradicts whom, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow

from tests.reading.support import facts_of
from tests.retrieval.support import SIDE, angle_reader, manifest_of, write_film
from wetread.datasets.manifest import Manifest
from wetread.errors import DatasetRefused, UsageError
from wetread.imaging import load_image
from wetread.reading.read import ReadOptions, ReadResult, check_options, read_image, read_images
from wetread.reading.similar import CaseSearch, cases_in, cases_like
from wetread.retrieval.cases import EmbedPlan, cases_of
from wetread.retrieval.locate import build_at
from wetread.retrieval.records import SearchOptions
from wetread.types import LabelReading, Read


def film_at(file: Path, degrees: float) -> Path:
    """An angle large enough for the gate."""
    with Pillow.open(write_film(file, degrees)) as picture:
        picture.resize((2 * SIDE, 2 * SIDE), Pillow.Resampling.NEAREST).save(file)
    return file


def films_in(folder: Path) -> Manifest:
    """Films at 0, 10 ... 70 degrees, ill from 40 on; p0 has the first two."""
    manifest = manifest_of(folder)
    for number in range(8):
        film_at(folder / f"{number}.png", 10 * number)
    return manifest


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """An index of them."""
    made = cases_of(angle_reader(), films_in(tmp_path / "films"), EmbedPlan())
    build_at(str(tmp_path / "cases"), made)
    return tmp_path / "cases"


def read_with(film: Path, search: CaseSearch) -> Read:
    return read_image(angle_reader(), load_image(film), ReadOptions(similar=search, heatmaps=False))


def paths_of(read: Read) -> list[str]:
    assert read.similar is not None
    return [case.path for case in read.similar.cases]


def test_the_nearest_cases_of_other_patients_stand_beside_the_probability(cases: Path, tmp_path: Path) -> None:
    film = film_at(tmp_path / "new.png", 12)
    read = read_with(film, cases_in(str(cases), 3))
    assert paths_of(read) == ["1.png", "2.png", "3.png"]  # p0 is named once, by its nearest film
    assert read.similar is not None
    assert [case.distance for case in read.similar.cases] == pytest.approx([0.0006, 0.0097, 0.0489], abs=2e-3)
    assert read.similar.warnings[0].startswith("the patient of new.png is not known")
    assert read.timings_ms["similar"] > 0


@pytest.mark.parametrize(("same_patient", "nearest"), [(False, "2.png"), (True, "1.png")])
def test_the_same_patient_is_left_out_unless_asked_for(
    cases: Path, tmp_path: Path, same_patient: bool, nearest: str
) -> None:
    film = film_at(tmp_path / "new.png", 12)
    search = cases_in(str(cases), 3, patient="p0", same_patient=same_patient)
    read = read_with(film, search)
    assert paths_of(read)[0] == nearest
    assert read.similar is not None
    assert read.similar.left_out == (0 if same_patient else 2)


def test_a_film_of_the_index_is_known_by_its_content(cases: Path, tmp_path: Path) -> None:
    read = read_with(tmp_path / "films" / "0.png", cases_in(str(cases), 3))
    assert paths_of(read) == ["2.png", "3.png", "4.png"]


def answer(decision: str) -> LabelReading:
    return LabelReading.model_validate({"label": "ill", "probability": 0.5, "decision": decision})


@pytest.mark.parametrize(("decision", "against"), [("negative", True), ("positive", False), ("withheld", False)])
def test_a_contradiction_is_said_in_the_record_and_as_a_warning(cases: Path, decision: str, against: bool) -> None:
    search = cases_in(str(cases), 4)
    vectors = search.index.vectors.take(search.index.live.nonzero()[0])[7]  # type: ignore[attr-defined]
    found, warnings = cases_like(search, vectors, facts_of(sha256="a" * 64), (answer(decision),))
    assert found is not None
    assert (found.vote["ill"].positive, found.vote["ill"].known) == (4, 4)
    sentence = "The classifier calls ill negative; 4 of the 4 most similar cases have it."
    assert (found.contradictions == (sentence,)) is against
    assert warnings == found.contradictions


def test_an_index_without_another_patient_is_a_warning_and_the_reading_stays(tmp_path: Path) -> None:
    manifest = films_in(tmp_path / "films")
    manifest = manifest.with_table(manifest.table.assign(patient="p0"))
    build_at(str(tmp_path / "cases"), cases_of(angle_reader(), manifest, EmbedPlan()))
    read = read_with(film_at(tmp_path / "new.png", 12), cases_in(str(tmp_path / "cases"), patient="p0"))
    assert read.similar is None
    assert read.labels[0].probability is not None
    assert "No similar cases: cases has none of another patient that fits." in read.warnings


def test_batches_find_what_single_images_find(cases: Path, tmp_path: Path) -> None:
    films = [film_at(tmp_path / "new" / f"{turn}.png", turn) for turn in (3, 27, 61)]
    search = cases_in(str(cases), 3, where="split=train")
    options = ReadOptions(similar=search, heatmaps=False)
    batch = [one.read for one in read_images(angle_reader(), films, options) if isinstance(one, ReadResult)]
    for film, read in zip(films, batch, strict=True):
        assert read.similar == read_with(film, search).similar


def test_local_embeddings_are_those_of_the_same_pass(tmp_path: Path) -> None:
    from tests.models.support import small_reader

    reader = small_reader("cnn", SIDE, weights={"model.safetensors": "3" * 64})
    made = cases_of(reader, films_in(tmp_path / "films"), EmbedPlan(kind="local"))
    build_at(str(tmp_path / "cases"), made)
    search = CaseSearch(cases_in(str(tmp_path / "cases")).index, 8, SearchOptions(once_per_patient=False))
    film = load_image(film_at(tmp_path / "new.png", 31))
    read = read_image(reader, film, ReadOptions(similar=search, heatmaps=False))
    assert read.similar is not None
    distances = {case.path: case.distance for case in read.similar.cases}
    assert distances["3.png"] == pytest.approx(min(distances.values()), abs=1e-3)  # nearly the same picture
    assert distances["3.png"] < 1e-3
    assert all(case.place in range(4) for case in read.similar.cases)  # 2 x 2 places


def test_an_image_that_the_gate_refuses_has_no_cases(reader: object, tmp_path: Path) -> None:
    from tests.reading.support import colour_photograph
    from wetread.models.predict import Reader

    assert isinstance(reader, Reader)
    made = cases_of(reader, films_in(tmp_path / "films"), EmbedPlan())
    build_at(str(tmp_path / "cases"), made)
    photo = load_image(colour_photograph(tmp_path / "holiday.png"))
    read = read_image(reader, photo, ReadOptions(similar=cases_in(str(tmp_path / "cases"))))
    assert not read.gate.passed
    assert read.similar is None


def test_mistakes_are_refused_before_anything_is_read(cases: Path, tmp_path: Path) -> None:
    other = angle_reader(weights={"model.safetensors": "2" * 64})
    with pytest.raises(DatasetRefused, match=r"expected the reader that made the index.*sha256 .*got.*sha256 "):
        check_options(other, ReadOptions(similar=cases_in(str(cases))))
    with pytest.raises(DatasetRefused, match="expected an index, got none in"):
        cases_in(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="got 'lable'; did you mean 'label'"):
        read_with(tmp_path / "films" / "0.png", cases_in(str(cases), where="lable=ill"))
