"""Speed and recall of similar cases: a million vectors, a hundred thousand images, additions; one thread.

The million is made of real embeddings: a point between a real image and one of its ten nearest, with noise of half
their distance, so that the cloud has the shape that real images give it; the queries are real images of the test
split, none of which went into it. Isotropic noise stands beside it as the worst case that no reader makes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, run_child, write_figures
from wetread.datasets.manifest import DatasetMeta, Manifest, load_manifest
from wetread.models.bundle import load_reader
from wetread.models.card import InputSpec
from wetread.retrieval.embed import embed_files, shelf_of
from wetread.retrieval.index import FolderIndex
from wetread.retrieval.records import Query, ReaderMark, SearchOptions, unit
from wetread.retrieval.write import Head, add_rows, build_index

Vectors = NDArray[np.float32]
WIDTH, NEAR, BLOCK = 512, 10, 50_000
_ADDED = 1000
_QUERIES = 624
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CLOUD = (
    "points between real {reader} embeddings of the train split (PCA to 512) and one of their ten nearest, with noise"
)
ASKED = (
    "queries: real images of the test split, none of them in the cloud; one at a time, one thread, patients left out"
)


def main() -> None:
    parser = arguments(__doc__, "results/index.csv")
    parser.add_argument("--dataset", type=Path, help="imported and split data set with real images")
    parser.add_argument("--reader", default="chest-pneumonia", help="name or folder of the reader")
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    parser.add_argument("--size", type=int, default=1_000_000, help="vectors of the large index; 0: none")
    parser.add_argument(
        "--images", type=int, default=100_000, help="images of the index built from cached features; 0: none"
    )
    parser.add_argument("--noise", type=int, default=200_000, help="vectors of isotropic noise; 0: none")
    parser.add_argument("--real", type=Path, help=".npz of the real vectors: written, or read where it exists")
    parser.add_argument("--work", type=Path, help="folder for scratch files, several GB [a temporary one]")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(STEPS[asked.step[0]](*asked.step[1:])))
        return
    with tempfile.TemporaryDirectory(dir=asked.work) as scratch:
        figures = measure(asked, Path(scratch))
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:70} {figure.value:10.4g} {figure.unit:10} {figure.bar:8} {figure.met}")


def measure(asked: argparse.Namespace, scratch: Path) -> list[Figure]:
    """Every figure, each step in a process of its own."""
    base, queries = kept_vectors(asked)
    np.save(scratch / "queries.npy", queries)
    cloud, near = CLOUD.format(reader=asked.reader), nearest_of(base)
    figures = []
    for name, size in (("cloud", asked.size), ("noise", asked.noise)):
        if not size:
            continue
        write_blocks(scratch / f"{name}.npy", size, partial(between, base, near) if name == "cloud" else noise)
        if name == "noise":
            np.save(scratch / "queries.npy", noise(_QUERIES, seed=10**6))
        what = f"{size:,} x {WIDTH}, {'real shape' if name == 'cloud' else 'isotropic noise'}"
        figures += large_figures(scratch, name, what, cloud if name == "cloud" else "isotropic noise")
        (scratch / f"{name}.npy").unlink()
    return figures + (cached_figures(asked, scratch) if asked.images else [])


def large_figures(scratch: Path, name: str, what: str, made_of: str) -> list[Figure]:
    """Build, search and extend one large index."""
    bars = name == "cloud"
    index = str(scratch / f"{name}-index")
    built, peak = child("build", str(scratch / f"{name}.npy"), index)
    searched, peak_search = child("search", index, str(scratch / "queries.npy"))
    added, _ = child("add", index, str(scratch / f"{name}.npy"))
    cells = f"{built['probes']} of {built['lists']} cells searched, chosen when it was built"
    figures = [
        Figure(f"build, {what}", built["seconds"], "s", f"vectors on disk to index on disk; {made_of}"),
        Figure(f"build, peak memory, {what}", peak / 2**30, "GiB", "resident, with pages of the mapped vectors"),
        Figure(f"index on disk, {what}", built["bytes"] / 2**30, "GiB", "float32 vectors, 8-bit codes, rows"),
        Figure(f"search p50, {what}", searched["p50_ms"], "ms", f"{made_of}; {ASKED}; {cells}", searched["n"]),
        Figure(
            f"search p95, {what}",
            searched["p95_ms"],
            "ms",
            f"{made_of}; {ASKED}; {cells}",
            searched["n"],
            bar="<= 10" if bars else "",
        ),
        Figure(
            f"search p95, processor time, {what}",
            searched["busy_p95_ms"],
            "ms",
            f"as above, without the time in which other work had the processor; {cells}",
            searched["n"],
        ),
        Figure(
            f"recall@10, {what}",
            searched["recall"],
            "share",
            f"{made_of}; {ASKED}; of the ten that exact search names",
            searched["n"],
            bar=">= 0.98" if bars else "",
        ),
        Figure(f"exact search, {what}", searched["exact_ms"], "ms", "every vector compared, 64 queries together"),
        Figure(f"search, peak memory, {what}", peak_search / 2**30, "GiB", "resident, exact search beside it"),
        Figure(
            f"add {_ADDED:,}, {what}",
            added["seconds"],
            "s",
            "embedded already, open index to new generation",
            bar="<= 2" if bars else "",
        ),
    ]
    return figures


def cached_figures(asked: argparse.Namespace, scratch: Path) -> list[Figure]:
    """``wetread index build`` and ``add_rows`` on small image files whose features are cached."""
    data, cache = scratch / "images", scratch / "cache"
    make_images(data, cache, asked.reader, asked.images)
    index, words = scratch / "cached-index", ["index", "build"]
    code = "from wetread.cli.main import main; main()"
    done = run_child(
        [sys.executable, "-c", code, *words, index, data, "--reader", asked.reader],
        {**_ONE_THREAD, "WETREAD_PATHS__CACHE": str(cache)},
    )
    if done.exit_code:
        sys.exit(done.stderr)
    added, _ = child("add-cached", str(index))
    what = f"{asked.images:,} images"
    how = "files hashed, features from the cache, one process as typed, one thread"
    return [
        Figure(f"index build, {what}, cached features", done.seconds, "s", how, bar="<= 60"),
        Figure(f"index build, peak memory, {what}", done.peak_bytes / 2**30, "GiB", how),
        Figure(
            f"add {_ADDED:,} to {what}", added["seconds"], "s", "embedded already, open index to new one", bar="<= 2"
        ),
    ]


def kept_vectors(asked: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """The real vectors, from ``--real`` where they were kept; a machine without the images can then measure."""
    if asked.real and asked.real.is_file():
        kept = np.load(asked.real)
        return unit(kept["train"].astype(np.float32)), unit(kept["test"].astype(np.float32))
    train, test = real_vectors(asked.reader, asked.dataset, asked.cache)
    if asked.real:
        np.savez(asked.real, train=train.astype(np.float16), test=test.astype(np.float16))
    return train, test


def real_vectors(reader: str, dataset: Path, cache: Path | None) -> tuple[Vectors, Vectors]:
    """Embeddings of train and test images reduced to 512 dimensions by the PCA of the train images, length 1."""
    loaded, manifest = load_reader(reader), load_manifest(dataset)
    parts = []
    for split in ("train", "test"):
        table = manifest.table[manifest.table["split"] == split]
        made = embed_files(loaded, [manifest.path_of(str(path)) for path in table["path"]], cache=cache)
        parts.append(np.asarray(made.vectors[:, 0], np.float64))
    _, axes = np.linalg.eigh(parts[0].T @ parts[0])
    train, test = (unit((part @ axes[:, -WIDTH:]).astype(np.float32)) for part in parts)
    return train, test


def nearest_of(base: Vectors) -> NDArray[np.intp]:
    """The ten nearest other rows of each row of ``base``, (N, 10)."""
    cosine = base @ base.T
    np.fill_diagonal(cosine, -2)  # a copy of itself would be the same point many times, and ties have no order
    return np.argpartition(-cosine, NEAR - 1, axis=1)[:, :NEAR]


def between(base: Vectors, near: NDArray[np.intp], n: int, seed: int = 0) -> Vectors:
    """Points (n, D) between rows of ``base`` and one of their nearest, with noise of half that distance."""
    generator = np.random.default_rng(seed)
    first = generator.integers(len(base), size=n)
    other = near[first, generator.integers(NEAR, size=n)]
    step = base[other] - base[first]
    points = base[first] + generator.random((n, 1), np.float32) * step
    spread = np.linalg.norm(step, axis=1, keepdims=True) / (2 * np.sqrt(base.shape[1]))
    return unit(points + spread * generator.standard_normal(points.shape, np.float32))


def noise(n: int, seed: int = 0) -> Vectors:
    """Directions (n, 512) spread evenly over the sphere."""
    return unit(np.random.default_rng(seed).standard_normal((n, WIDTH), np.float32))


def write_blocks(path: Path, size: int, make: Callable[[int, int], Vectors]) -> None:
    """Write (size, 1, 512) float32 in blocks, each from a seed of its own."""
    out = np.lib.format.open_memmap(path, "w+", np.float32, (size, 1, WIDTH))
    for number, start in enumerate(range(0, size, BLOCK)):
        count = min(BLOCK, size - start)
        out[start : start + count, 0] = make(count, number)
    out.flush()


def child(*step: str) -> tuple[dict[str, Any], int]:
    """Run one step in a process with one thread; return what it printed and its peak memory."""
    done = run_child([sys.executable, "-m", "benchmarks.index_speed", "--step", *step], _ONE_THREAD)
    if done.exit_code:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found, done.peak_bytes


def head() -> Head:
    """A head for vectors that no reader made."""
    mark = ReaderMark(name="none", version="0", sha256="0" * 64, embedding="0" * 64, source="none")
    return Head(mark, InputSpec(height=32, width=32), "pooled", "image", (1, 1), "vectors", "binary", ("no", "yes"))


def rows_for(size: int, start: int = 0) -> pd.DataFrame:
    """A table as a data set gives it: five images of every two patients."""
    number = np.arange(start, start + size)
    return pd.DataFrame(
        {
            "path": [f"images/{i:07d}.png" for i in number],
            "patient": [f"p{i * 2 // 5:07d}" for i in number],
            "label": np.where(number % 3 == 0, "yes", "no"),
            "split": "train",
            "body_part": "CHEST",
            "sha256": [f"{i:064x}" for i in number],
            "root": "/data",
            "images": 1,
        }
    )


def step_build(source: str, index: str) -> dict[str, Any]:
    vectors = np.load(source, mmap_mode="r")
    rows = rows_for(len(vectors))
    begin = time.perf_counter()
    card = build_index(Path(index), head(), rows, vectors).card
    seconds = time.perf_counter() - begin
    ann = card.ann
    size = sum(mark.size_bytes for mark in card.files)
    return {"seconds": seconds, "bytes": size, "lists": ann.lists if ann else 0, "probes": ann.probes if ann else 0}


def step_search(path: str, queries: str) -> dict[str, Any]:
    index = FolderIndex(Path(path))
    options = SearchOptions(once_per_patient=False)
    asked = [Query(vector, patient=f"p{i:07d}") for i, vector in enumerate(np.load(queries))]
    index.search(asked[:20], 10, options)
    milliseconds, busy, found = [], [], []
    for query in asked:
        begin, begin_busy = time.perf_counter(), time.thread_time()
        found.append(index.search([query], 10, options)[0])
        milliseconds.append((time.perf_counter() - begin) * 1e3)
        busy.append((time.thread_time() - begin_busy) * 1e3)
    exact = FolderIndex(Path(path), with_ann=False)
    exact.search(asked[:1], 10, options)
    begin = time.perf_counter()
    truth = exact.search(asked, 10, options)
    exact_ms = (time.perf_counter() - begin) * 1e3 / len(asked)
    recall = np.mean(
        [
            len({hit.row for hit in one.hits} & {hit.row for hit in true.hits}) / len(true.hits)
            for one, true in zip(found, truth, strict=True)
        ]
    )
    p50, p95 = np.percentile(milliseconds, [50, 95])
    times = {"p50_ms": p50, "p95_ms": p95, "busy_p95_ms": float(np.percentile(busy, 95)), "exact_ms": exact_ms}
    return {**times, "recall": float(recall), "n": len(asked)}


def step_add(index: str, source: str) -> dict[str, Any]:
    vectors = unit(np.load(source, mmap_mode="r")[:_ADDED] + np.float32(0.01))
    return _timed_add(index, vectors, head())


def step_add_cached(index: str) -> dict[str, Any]:
    card = FolderIndex(Path(index)).card
    like = Head(card.reader, card.input, card.kind, card.level, card.places, "more", card.task, card.classes)
    vectors = unit(np.random.default_rng(9).standard_normal((_ADDED, 1, card.dimension), np.float32))
    return _timed_add(index, vectors, like)


def _timed_add(index: str, vectors: Vectors, of: Head) -> dict[str, Any]:
    rows = rows_for(_ADDED, 10**7)
    begin = time.perf_counter()
    changed = add_rows(Path(index), of, rows, vectors)
    return {"seconds": time.perf_counter() - begin, "added": changed.added}


def make_images(folder: Path, cache: Path, reader: str, count: int) -> None:
    """Write ``count`` PNG files of 16 x 16 pixels, each unlike all others, and put features for them into the cache."""
    from PIL import Image

    from wetread.provenance import file_sha256

    generator = np.random.default_rng(5)
    loaded = load_reader(reader)
    shelf = shelf_of(loaded, "pooled", cache)
    width = int(loaded.networks[0].encoder.num_features)  # type: ignore[arg-type]
    names = [f"{i // 1000:03d}/{i:06d}.png" for i in range(count)]
    rows: dict[str, NDArray[np.generic]] = {}
    for i, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(int(i).to_bytes(8, "big") * 32, np.uint8).reshape(16, 16)
        Image.fromarray(pixels).save(file, compress_level=0)
        rows[file_sha256(file)] = generator.standard_normal(width, np.float32)
        if len(rows) == 1024 or i == count - 1:
            shelf.keep(rows)
            rows = {}
    table = pd.DataFrame(
        {
            "path": names,
            "patient": [f"p{i // 2}" for i in range(count)],
            "label": ["no" if i % 2 else "yes" for i in range(count)],
        }
    )
    Manifest(table, DatasetMeta(name="small", classes=("no", "yes")), folder).save(folder)


STEPS: dict[str, Any] = {
    "build": step_build,
    "search": step_search,
    "add": step_add,
    "add-cached": step_add_cached,
}


if __name__ == "__main__":
    os.environ.update(_ONE_THREAD)
    main()
