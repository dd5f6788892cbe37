"""Comparing every vector: blocks, segments and half precision give the same order; FAISS and torch live together."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.retrieval.support import random_units
from wetread.retrieval.exact import VectorSet, best_of

BOTH = """
import {first}; import {second}
import torch, faiss, numpy as np
x = np.random.default_rng(0).standard_normal((2000, 32), np.float32)
for _ in range(3):
    a = torch.from_numpy(x) @ torch.from_numpy(x[:9]).T
    _, ids = faiss.knn(x[:9], x, 1, metric=faiss.METRIC_INNER_PRODUCT)
    assert (a.argmax(0).numpy() == ids[:, 0]).all()
"""


@pytest.mark.parametrize(("first", "second"), [("torch", "faiss"), ("faiss", "torch")])
def test_faiss_and_torch_in_one_process(first: str, second: str) -> None:
    """Each brings its own OpenMP: no crash in either order, with two threads each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    code = BOTH.format(first=first, second=second)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_segments_are_one_table() -> None:
    whole = random_units(1000, 8)
    parts = VectorSet([whole[:10], whole[10:700], whole[700:]])
    rows = np.array([999, 3, 10, 700, 9])
    np.testing.assert_array_equal(parts.take(rows), whole[rows])
    for count in (1, 9):  # by FAISS, and by one product
        queries = random_units(count, 8, seed=1)[:, 0]
        for have, want in zip(parts.nearest(queries, 20), VectorSet([whole]).nearest(queries, 20), strict=True):
            np.testing.assert_array_equal(have.rows, want.rows)
            np.testing.assert_allclose(have.similarities, want.similarities, atol=1e-6)
        first = parts.nearest(queries, 20)[0]
        np.testing.assert_allclose(first.similarities, np.sort(whole[:, 0] @ queries[0])[::-1][:20], atol=1e-6)


def test_rows_behind_a_beginning_or_in_a_list_alone_are_compared() -> None:
    vectors = VectorSet([random_units(50, 4), random_units(50, 4, seed=1)])
    query = random_units(1, 4, seed=2)[:, 0]
    assert min(vectors.nearest(query, 100, begin=70)[0].rows) == 70
    assert set(vectors.nearest(query, 9, rows=np.array([3, 60]))[0].rows.tolist()) == {3, 60}
    assert vectors.nearest(query, 9, rows=np.empty(0, np.int64))[0].rows.tolist() == []


def test_places_are_averaged_over_the_query_and_the_best_of_the_case() -> None:
    """Two places of the query; case 0 has one of them, case 1 half of each."""
    east, north, between = [1.0, 0.0], [0.0, 1.0], [2**-0.5, 2**-0.5]
    cases = np.array([[east, east], [between, [-1.0, 0.0]]], np.float16)
    scored = VectorSet([cases]).score(np.array([east, north], np.float32))
    np.testing.assert_allclose(scored.similarities, [(1 + 0) / 2, 2**-0.5], atol=1e-3)
    assert best_of(scored, 1).rows.tolist() == [1]
    assert scored.places.tolist() == [0, 0]
