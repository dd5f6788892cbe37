"""An index in a folder: nearest first, never the patient who asks, whole generations, damage found by its hash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest

from tests.retrieval.support import angles, head_of, random_units, rows_of
from wetread.errors import DatasetRefused, UsageError, WetreadError
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.records import EXACT_LIMIT, Query, SearchOptions, unit
from wetread.retrieval.store import CARD, Folder
from wetread.retrieval.where import parse_where
from wetread.retrieval.write import add_rows, build_index, delete_rows

ALL = SearchOptions(once_per_patient=False)


def ask(degrees: float, patient: str | None = None, sha256: str | None = None) -> Query:
    return Query(angles(degrees)[0], patient, sha256, "film")


def found(index: FolderIndex, query: Query, k: int, options: SearchOptions | None = None) -> list[int]:
    return [hit.row for hit in index.search([query], k, options)[0].hits]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Eight rows at 0, 10 ... 70 degrees; p0 has rows 0 and 1; row 6 is of nobody known."""
    rows = rows_of(8, patient=["p0", "p0", "p2", "p3", "p4", "p5", None, "p7"], age=[1.0, 2, 3, 4, 5, 6, 7, None])
    build_index(tmp_path / "cases", head_of(), rows, angles(*range(0, 80, 10)))
    return tmp_path / "cases"


def test_nearest_first_with_the_cosine(path: Path) -> None:
    (one,) = FolderIndex(path).search([ask(42)], 3)
    assert [hit.row for hit in one.hits] == [4, 5, 3]
    for hit, degrees in zip(one.hits, (2, 8, 12), strict=True):
        assert hit.similarity == pytest.approx(np.cos(np.deg2rad(degrees)), abs=1e-6)


def test_the_patient_asked_about_is_never_an_answer_unless_asked_for(path: Path) -> None:
    index = FolderIndex(path)
    assert found(index, ask(1, patient="p0"), 3) == [2, 3, 4]
    assert found(index, ask(1, sha256=f"{1:064x}"), 3) == [2, 3, 4]  # the file of row 1: its patient is p0
    assert index.search([ask(1, patient="p0")], 3)[0].left_out == 2
    own = SearchOptions(same_patient=True, once_per_patient=False)
    assert found(index, ask(1, sha256=f"{1:064x}"), 3, own) == [0, 2, 3]  # the very file is no case of its own
    assert found(index, ask(59, sha256=f"{6:064x}"), 2) == [5, 7]  # without a patient a row is its own


def test_a_patient_is_answered_once_unless_all_images_are_asked_for(path: Path) -> None:
    assert found(FolderIndex(path), ask(4), 3) == [0, 2, 3]
    assert found(FolderIndex(path), ask(4), 3, ALL) == [0, 1, 2]


def test_many_images_of_one_patient_do_not_hide_the_others(tmp_path: Path) -> None:
    rows = rows_of(60, patient=["many"] * 55 + [f"p{i}" for i in range(5)])
    build_index(tmp_path / "cases", head_of(), rows, angles(*np.linspace(0, 59, 60)))
    assert found(FolderIndex(tmp_path / "cases"), ask(0), 3) == [0, 55, 56]
    assert found(FolderIndex(tmp_path / "cases"), ask(0, patient="many"), 9) == [55, 56, 57, 58, 59]


def test_a_condition_limits_the_answers_and_one_that_nothing_fits_is_refused(path: Path) -> None:
    index = FolderIndex(path)
    assert found(index, ask(42), 3, SearchOptions(parse_where("label=normal"))) == [5, 3, 7]
    assert found(index, ask(42), 9, SearchOptions(parse_where("age<3 or age is null"), once_per_patient=False)) == [
        7,
        1,
        0,
    ]
    with pytest.raises(UsageError, match="got 'lable'; did you mean 'label'"):
        index.search([ask(0)], 1, SearchOptions(parse_where("lable=normal")))
    with pytest.raises(DatasetRefused, match=r"none of 8; label is ill \(4\), normal \(4\)"):
        index.search([ask(0)], 1, SearchOptions(parse_where("label=sick")))
    with pytest.raises(DatasetRefused, match="none of 8; age runs from 1 to 7"):
        index.search([ask(0)], 1, SearchOptions(parse_where("age>70")))


def test_questions_that_make_no_sense_are_refused(path: Path) -> None:
    index = FolderIndex(path)
    with pytest.raises(UsageError, match="expected at least 1 case, got 0"):
        index.search([ask(0)], 0)
    with pytest.raises(UsageError, match="expected embeddings of length 2, got 3; use the reader small"):
        index.search([Query(np.ones(3, np.float32))], 1)
    with pytest.raises(UsageError, match="expected a finite embedding of film, got NaN or infinity"):
        Query(np.array([1, np.nan], np.float32), name="film")
    assert len(found(index, ask(0), 100)) == 7  # one for each patient


def test_exact_search_is_that_of_faiss(tmp_path: Path) -> None:
    vectors, queries = random_units(3000, 24), random_units(40, 24, seed=1)
    build_index(tmp_path / "cases", head_of(), rows_of(3000), vectors)
    flat = faiss.IndexFlatIP(24)
    flat.add(vectors[:, 0])
    _, want = flat.search(queries[:, 0], 7)
    index = FolderIndex(tmp_path / "cases")
    asked = [Query(query) for query in queries]
    together = [[hit.row for hit in one.hits] for one in index.search(asked, 7, ALL)]
    alone = [found(index, query, 7, ALL) for query in asked]
    assert together == alone == want.tolist()


def test_added_rows_are_found_and_known_ones_are_left(path: Path) -> None:
    before = FolderIndex(path)
    rows = rows_of(3, path=["a.png", "b.png", "2.png"], sha256=["a" * 64, f"{4:064x}", "c" * 64], extra=[1.5, 2.5, 3.5])
    changed = add_rows(path, head_of(dataset="more"), rows, angles(42, 43, 44))
    assert (changed.added, changed.known, changed.replaced) == (1, 1, 1)  # 2.png has other bytes now
    index = FolderIndex(path)
    assert (index.card.count, index.card.generation, index.card.datasets) == (9, 2, ("set", "more"))
    names = index.table([hit.row for hit in index.search([ask(43)], 9, ALL)[0].hits])
    assert names["path"].tolist()[:2] == ["2.png", "a.png"]
    assert names["path"].tolist().count("2.png") == 1
    assert found(index, ask(43), 2, SearchOptions(parse_where("extra > 0"), once_per_patient=False)) != []
    assert found(before, ask(43), 1) == [4]  # an open index keeps its generation
    assert before.table([2])["path"].tolist() == ["2.png"]


def test_deleted_rows_are_gone_from_answers_and_from_the_disk(path: Path) -> None:
    assert delete_rows(path, parse_where("patient=p4")).deleted == 1
    assert delete_rows(path, paths=["5.png", "3.png"]).deleted == 2
    index = FolderIndex(path)
    assert index.card.count == 5
    assert index.table(range(5))["path"].tolist() == ["0.png", "1.png", "2.png", "6.png", "7.png"]
    (rows,), (vectors,) = path.glob("*.parquet"), path.glob("*.npy")
    assert pd.read_parquet(rows)["path"].tolist() == ["0.png", "1.png", "2.png", "6.png", "7.png"]
    np.testing.assert_array_equal(np.load(vectors), angles(0, 10, 20, 60, 70))
    with pytest.raises(DatasetRefused, match=r"got 1 others, e.g. 9.png; did you mean"):
        delete_rows(path, paths=["9.png"])
    with pytest.raises(UsageError, match="expected what to delete, got nothing"):
        delete_rows(path)


def test_an_index_may_become_empty_and_says_so(path: Path) -> None:
    delete_rows(path, parse_where("root=/films"))
    with pytest.raises(DatasetRefused, match="expected at least one case in the index, got an empty one; add some"):
        FolderIndex(path).search([ask(0)], 1)
    add_rows(path, head_of(), rows_of(2), angles(0, 10))
    assert found(FolderIndex(path), ask(9), 1) == [1]


@pytest.mark.parametrize("ending", [".vectors.npy", ".rows.parquet"])
def test_damage_is_found_by_its_hash_and_the_cure_is_named(path: Path, ending: str) -> None:
    (file,) = path.glob(f"*{ending}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    message = rf"expected a whole 000001{ending} in the index .*, got sha256 .*; build it again: wetread index build"
    with pytest.raises(DatasetRefused, match=message):
        FolderIndex(path)
    file.write_bytes(bytes(data[:-5]))
    with pytest.raises(DatasetRefused, match=r"\d+ bytes instead of \d+; build it again"):
        FolderIndex(path)
    file.unlink()
    with pytest.raises(DatasetRefused, match="no such file; build it again"):
        FolderIndex(path)


def test_a_damaged_card_a_missing_index_and_files_outside_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match=r"expected an index, got none in .*nowhere; make one"):
        FolderIndex(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    text = (path / CARD).read_text(encoding="utf-8")
    card = json.loads(text)
    card["segments"][0]["rows"]["name"] = "../secret.parquet"
    (path / CARD).write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(DatasetRefused, match="a file outside of the folder"):
        FolderIndex(path)
    (path / CARD).write_text(text.replace('"dimension": 2', '"dimension": 0'), encoding="utf-8")
    with pytest.raises(DatasetRefused, match=r"expected a whole index.json .*, got dimension: "):
        FolderIndex(path)
    (path / CARD).write_text(text[:50], encoding="utf-8")
    with pytest.raises(DatasetRefused, match=r"expected a whole index.json"):
        FolderIndex(path)


def test_another_reader_is_refused_and_both_hashes_are_named(path: Path) -> None:
    other = head_of("f" * 64)
    with pytest.raises(DatasetRefused, match=r"small 1 with embedding eeeeeeeeeeee…, got .* ffffffffffff… \(another"):
        add_rows(path, other, rows_of(1), angles(0))
    mark = other.reader.model_copy(update={"sha256": "2" * 64, "name": "big"})
    with pytest.raises(DatasetRefused, match=r"small 1 with sha256 111111111111…, got big 1 with sha256 222222222222…"):
        add_rows(path, head_of(reader=mark), rows_of(1), angles(0))
    with pytest.raises(DatasetRefused, match="expected a binary data set with the index's classes normal, ill, got"):
        add_rows(path, head_of(classes=("ok", "ill")), rows_of(1), angles(0))
    with pytest.raises(DatasetRefused, match="expected pooled embeddings by image, got pooled ones by study"):
        add_rows(path, head_of(level="study"), rows_of(1), angles(0))


def test_a_place_that_is_taken_is_refused_and_nothing_is_left_of_a_failed_build(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which exists; name another, or add --overwrite"):
        build_index(path, head_of(), rows_of(1), angles(0))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="which has other files; name another"):
        build_index(tmp_path / "other", head_of(), rows_of(1), angles(0), overwrite=True)
    assert build_index(path, head_of(), rows_of(1), angles(0), overwrite=True).card.generation == 2
    assert len(FolderIndex(path)) == 1
    with pytest.raises(AttributeError):
        build_index(tmp_path / "new", head_of(), rows_of(1), None)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_second_writer_waits_or_refuses(path: Path) -> None:
    folder, order = Folder(path), []
    with folder.writing():
        with (
            pytest.raises(WetreadError, match=r"expected to be the only writer of .*, got another one that did not"),
            folder.writing(wait_s=0.1),
        ):
            pass
        other = threading.Thread(target=lambda: order.append(add_rows(path, head_of(), rows_of(9), _nine()).added))
        other.start()
        time.sleep(0.2)
        assert order == []
    other.join()
    assert order == [1]
    assert len(FolderIndex(path)) == 9


def _nine() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return angles(*range(0, 90, 10))


def test_readers_see_whole_generations_while_writers_write(path: Path) -> None:
    """Two processes add one row each, twelve times; every state that is seen in between has as many vectors as rows."""
    code = (
        "import sys; from pathlib import Path; from tests.retrieval.support import *; "
        "from wetread.retrieval.write import add_rows\n"
        "for i in range(12):\n"
        "    name = f'{sys.argv[2]}-{i}'\n"
        "    rows = rows_of(1, path=[name], sha256=[name.rjust(64, '0')])\n"
        "    add_rows(Path(sys.argv[1]), head_of(), rows, angles(float(i)))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], env={**os.environ, "PYTHONPATH": "src:."})
        for name in ("a", "b")
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        index = FolderIndex(path)
        assert len(index.vectors) == len(index.column("path")) >= index.card.count
        assert len(found(index, ask(5), index.card.count, ALL)) == index.card.count
        seen.add(index.card.generation)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert FolderIndex(path).card.count == 8 + 24
    assert len(seen) > 1


def test_what_a_killed_writer_left_is_swept_by_the_next(path: Path) -> None:
    (path / "000009.vectors.npy").write_bytes(b"half")
    assert found(FolderIndex(path), ask(0), 1) == [0]
    delete_rows(path, paths=["7.png"])
    assert sorted(file.suffix for file in path.iterdir() if file.name != ".lock") == [".json", ".npy", ".parquet"]


SIZE = EXACT_LIMIT + 3000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More vectors than are all compared; two rows for each patient."""
    path = tmp_path_factory.mktemp("large") / "cases"
    rows = rows_of(SIZE, patient=[f"p{i // 2}" for i in range(SIZE)])
    build_index(path, head_of(), rows, random_units(SIZE, 8))
    return path


class TestManyVectors:
    """Above the limit candidates come from the approximate index and are compared again."""

    def test_it_finds_what_exact_search_finds(self, large: Path) -> None:
        index, exact = FolderIndex(large), FolderIndex(large, with_ann=False)
        assert index.card.ann is not None
        assert index.card.ann.probes < index.card.ann.lists
        queries = [Query(one, patient=f"p{i}") for i, one in enumerate(random_units(50, 8, seed=7))]
        for options in (ALL, SearchOptions(), SearchOptions(parse_where("label=ill"), once_per_patient=False)):
            have, want = index.search(queries, 10, options), exact.search(queries, 10, options)
            shared = [
                len({hit.row for hit in a.hits} & {hit.row for hit in b.hits}) for a, b in zip(have, want, strict=True)
            ]
            assert np.mean(shared) >= 9.5
            assert all(len(one.hits) == 10 for one in have)
            assert all({hit.row for hit in one.hits}.isdisjoint({2 * i, 2 * i + 1}) for i, one in enumerate(have))
            labels = index.table([hit.row for one in have for hit in one.hits])["label"]
            assert options.where is None or set(labels) == {"ill"}

    def test_similarities_are_those_of_the_vectors_not_of_the_codes(self, large: Path) -> None:
        index = FolderIndex(large)
        query = Query(random_units(1, 8, seed=8)[0])
        for hit in index.search([query], 5)[0].hits:
            assert hit.similarity == pytest.approx(
                float(index.vectors.take(np.array([hit.row]))[0, 0] @ query.vectors[0]), abs=1e-6
            )

    def test_later_rows_are_found_and_deleted_ones_are_not(self, large: Path) -> None:
        new = unit(np.ones((1, 1, 8), np.float32))
        add_rows(large, head_of(), rows_of(1, path=["new.png"], sha256=["n" * 64], patient=["new"]), new)
        index = FolderIndex(large)
        assert index.card.ann is not None
        assert index.card.ann.rows == SIZE  # one row more is compared beside it
        query = Query(new[0])
        first, second = (hit.row for hit in index.search([query], 2)[0].hits)
        assert first == SIZE
        victim = index.table([second])["path"].iloc[0]
        delete_rows(large, paths=[victim])
        after = FolderIndex(large)
        assert second not in found(after, query, 5)
        delete_rows(large, paths=["new.png"], purge=True)
        assert FolderIndex(large).card.deleted is None
        assert len(FolderIndex(large).vectors) == SIZE - 1


def test_an_addition_that_passes_the_limit_waits_for_more_before_cells_are_made(tmp_path: Path) -> None:
    path, vectors = tmp_path / "cases", random_units(EXACT_LIMIT + 20_000, 4)
    rows = rows_of(len(vectors), patient=[f"p{i}" for i in range(len(vectors))])
    build_index(path, head_of(), rows[:EXACT_LIMIT], vectors[:EXACT_LIMIT])
    for first, last, cells in ((0, 10, False), (10, 20_000, True)):
        some = slice(EXACT_LIMIT + first, EXACT_LIMIT + last)
        add_rows(path, head_of(), rows[some].reset_index(drop=True), vectors[some])
        index = FolderIndex(path)
        assert (index.card.ann is not None) == cells
        query = Query(vectors[EXACT_LIMIT + first], patient="another")
        assert found(index, query, 1) == [EXACT_LIMIT + first]


def test_rows_of_other_columns_are_unknown_there(path: Path) -> None:
    rows = rows_of(1, path=["x.png"], sha256=["x" * 64], view=["AP"]).drop(columns="label")
    add_rows(path, head_of(), rows, angles(80))
    index = FolderIndex(path)
    assert index.column("view").isna().sum() == 8
    assert found(index, ask(0), 1, SearchOptions(parse_where("view=AP"))) == [8]
    assert pd.isna(index.table([8])["label"].iloc[0])
