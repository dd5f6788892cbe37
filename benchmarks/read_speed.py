"""How long a read takes: cold from the shell, warm with a heat map, and a folder of real films.

Uses the shipped reader, or ``--reader``. The films are from the *train* part of kermany-cxr: a benchmark
has no business with a test split. Without the shared data only the phantom rows are measured.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, arguments, run_child, summarise, timed, write_figures
from wetread.datasets.phantoms import render, sample_spec, write_dicom
from wetread.defaults import DEFAULT_READER

COLD_REPEATS = 5
WARM_REPEATS, WARM_UP = 30, 3
UNGUIDED = "chest-pneumonia"
"""The shipped reader that sees whole films: no organ is sought before it reads."""
BATCH = 624
FILM_PX = 2048
"""Side of the DICOM film: a 35 x 43 cm plate at 0.2 mm."""


def main() -> None:
    parser = arguments(__doc__, "results/read_speed.csv")
    parser.add_argument("--reader", default=DEFAULT_READER, help="name or folder (default: %(default)s)")
    parser.add_argument("--images", type=int, default=BATCH, help="films of the batch (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        film = phantom_film(Path(folder))
        figures = [cold(film, options.reader)]
        for reader in sorted({options.reader, UNGUIDED}):
            figures += warm(film, reader)
        films = real_films(options.images)
        if films:
            figures += batches(films, options.reader, Path(folder))
        else:
            print("no kermany-cxr: the batch was not measured", file=sys.stderr)
    write_figures(options.out, figures)
    for figure in figures:
        print(f"{figure.what:64} {figure.value:9.2f} {figure.unit:9} {figure.bar:8} {figure.met}")


def phantom_film(folder: Path) -> Path:
    """One CR DICOM of full size."""
    return write_dicom(render(sample_spec(np.random.default_rng(5), size_px=FILM_PX)), folder / "film.dcm")


def cold(film: Path, reader: str) -> Figure:
    command: list[str | Path] = [
        Path(sys.executable).with_name("wetread"), "read", film, "--json", "--reader", reader
    ]  # fmt: skip
    seconds = []
    for number in range(COLD_REPEATS + 1):
        child = run_child(command)
        if child.exit_code not in (0, 3):  # 3: the gate may refuse a phantom
            raise SystemExit(f"expected a read, got exit code {child.exit_code}: {child.stderr}")
        json.loads(child.stdout)
        if number:  # the first start fills the disk cache and writes bytecode
            seconds.append(child.seconds)
    protocol = (
        f"median of {COLD_REPEATS} new processes, wall clock, one {FILM_PX} px CR DICOM to JSON with heat map, "
        "files in the disk cache, bytecode compiled"
    )
    return summarise("read, cold start to JSON, one DICOM", seconds, "s", protocol, "<= 4")


def warm(film: Path, name: str) -> list[Figure]:
    """One film again and again in one process, and what its heat map adds to the forward pass."""
    import wetread
    from wetread.models.predict import Reader

    loaded = wetread.load(name)
    card = loaded.card
    if not loaded.read(film).gate.passed:  # a phantom is far from people: lift the gate, keep its work
        bare = Reader(card.model_copy(update={"gate": None}), loaded.reader.networks, loaded.reader.statistics)
        loaded = replace(loaded, reader=bare)
    explain_ms: list[float] = []
    whole_s = timed(lambda: explain_ms.append(loaded.read(film).timings_ms["explain"]), WARM_REPEATS, warm_up=WARM_UP)
    protocol = (
        f"median of {WARM_REPEATS} reads in one process from file to record with Grad-CAM, {FILM_PX} px CR DICOM "
        f"phantom, gate limit lifted where it refuses one; {card.name} {card.architecture} {card.input.height} px, "
        f"{card.networks} network(s)"
    )
    return [
        summarise(f"read, warm, one DICOM with Grad-CAM, {name}", [1e3 * s for s in whole_s], "ms", protocol, "<= 100"),
        summarise(f"Grad-CAM over the forward pass, {name}", explain_ms[WARM_UP:], "ms", protocol, "<= 60"),
    ]


def real_films(count: int) -> list[Path]:
    """The same films each time, both classes, from the training part."""
    root = Path(os.environ.get("WETREAD_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    films = sorted((root / "kermany-cxr" / "train").glob("*/*.jpeg"))
    return films[:: max(1, len(films) // count)][:count]


def batches(films: list[Path], reader: str, folder: Path) -> list[Figure]:
    """Read the films with heat maps: in memory, and as the verb that also writes all pages."""
    import wetread

    loaded = wetread.load(reader)
    begin = time.perf_counter()
    results = list(loaded.read_many(films))
    in_memory = len(results) / (time.perf_counter() - begin)
    inbox = folder / "inbox"
    inbox.mkdir()
    for number, film in enumerate(films):
        shutil.copy(film, inbox / f"{number:05d}-{film.name}")
    wetread_verb = Path(sys.executable).with_name("wetread")
    child = run_child([wetread_verb, "read", inbox, "--reader", reader, "--out", folder / "out"])
    if child.exit_code not in (0, 1):
        raise SystemExit(f"expected reads, got exit code {child.exit_code}: {child.stderr}")
    what = f"{len(films)} films of kermany-cxr train (224 px JPEG), Grad-CAM for each"
    return [
        Figure("batch read with heat maps", in_memory, "images/s", f"{what}, reader loaded, one run", bar=">= 12"),
        Figure(
            "wetread read FOLDER --out, all pages", len(films) / child.seconds, "images/s",
            f"{what}, new process with start-up, HTML, PNG and JSON written, one run", bar=">= 12",
        ),
        Figure("peak memory of that", child.peak_bytes / 2**20, "MiB", f"{what}, sum of resident sizes"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
