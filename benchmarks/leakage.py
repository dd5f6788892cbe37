"""How many copies of a film in another split T1 finds, by what was done to the copy, and how many pairs it makes up.

Films of different patients, none a copy of another by perceptual hash, lie in ``train``. Of some of them a changed copy
under another patient's name lies in ``test``, among further films that have no copy. The
limits were chosen on other films and other seeds. The flaw: films of one data set, at 224 pixels, and one change each.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.common import Figure, arguments, write_figures
from wetread.audit.leakage import found_leaks
from wetread.datasets.duplicates import find_copies
from wetread.datasets.manifest import DatasetMeta, Manifest, load_manifest
from wetread.datasets.scan import scan
from wetread.evaluation.intervals import wilson

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def compressed(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """JPEG of quality 50."""
    buffer = BytesIO()
    film.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("L")


def cut(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """95 % of the rows and columns, at a random place."""
    width, height = round(0.95 * film.width), round(0.95 * film.height)
    left, top = int(rng.integers(film.width - width + 1)), int(rng.integers(film.height - height + 1))
    return film.crop((left, top, left + width, top + height))


def cut_all_round(film: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 % off each of the four sides: 81 % of the area is left."""
    across, down = round(0.05 * film.width), round(0.05 * film.height)
    return film.crop((across, down, film.width - across, film.height - down))


KINDS: dict[str, tuple[Change, str]] = {
    "exact": (lambda film, rng: film, ">= 1.0"),
    "half the size": (lambda film, rng: film.resize((film.width // 2, film.height // 2)), ">= 1.0"),
    "JPEG quality 50": (compressed, ">= 0.99"),
    "mirrored": (lambda film, rng: film.transpose(Image.Transpose.FLIP_LEFT_RIGHT), ">= 0.95"),
    "5 % of each axis cut away": (cut, ">= 0.95"),
    "5 % cut from each of four sides": (cut_all_round, ">= 0.95"),
    "mirrored and 5 % of each axis cut away": (
        lambda film, rng: cut(film.transpose(Image.Transpose.FLIP_LEFT_RIGHT), rng),
        "",
    ),
}
"""What is done to a copy, and the recall that is asked for."""


def main() -> None:
    parser = arguments(__doc__, "results/leakage.csv")
    parser.add_argument("--dataset", type=Path, required=True, help="imported data set of radiographs")
    parser.add_argument("--copies", type=int, default=100, help="of each kind (default: %(default)s)")
    parser.add_argument("--others", type=int, default=500, help="films in test without a copy (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2026)
    asked = parser.parse_args()
    figures = measure(load_manifest(asked.dataset), asked.copies, asked.others, asked.seed)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:60} {figure.value:.4f} {figure.unit} {figure.bar} {figure.met}")


def measure(manifest: Manifest, copies: int, others: int, seed: int) -> list[Figure]:
    """Recall of each kind, precision over all pairs found, and the time it took."""
    rng = np.random.default_rng(seed)
    films = distinct(manifest, copies * len(KINDS) + others, rng)
    with tempfile.TemporaryDirectory() as folder:
        planted, planted_pairs = plant(manifest, films, copies, Path(folder), rng)
        begin = time.process_time()
        scanned = scan(planted, workers=1)
        read_s = time.process_time() - begin
        begin = time.process_time()
        found = found_leaks(planted, scanned)
        compare_s = time.process_time() - begin
    pairs = {frozenset((p.first, p.second)) for p in found.copies}
    pairs |= {frozenset((a, b)) for group in found.exact for a in group for b in group if a < b}
    return figures_of(pairs, planted_pairs, len(planted.table), (read_s, compare_s))


def distinct(manifest: Manifest, wanted: int, rng: np.random.Generator) -> list[str]:
    """Paths of films of different patients of which none is a copy of another by perceptual hash."""
    table = manifest.table.iloc[rng.permutation(len(manifest.table))]
    table = table.drop_duplicates("patient").head(round(1.2 * wanted)).reset_index(drop=True)
    alike = find_copies(scan(manifest.with_table(table), workers=1))
    copied = {row for group in alike.exact for row in group}
    copied |= {row for pair in (*alike.near, *alike.mirrored) for row in (pair.first, pair.second)}
    return list(table["path"].drop(index=list(copied)).head(wanted))


def plant(
    manifest: Manifest, films: list[str], copies: int, folder: Path, rng: np.random.Generator
) -> tuple[Manifest, dict[frozenset[int], str]]:
    """A data set in two splits, and the pairs of rows that show one film, with what was done."""
    rows, pairs = [], {}
    chosen, rest = films[: copies * len(KINDS)], films[copies * len(KINDS) :]
    for number, path in enumerate(chosen):
        kind = list(KINDS)[number % len(KINDS)]
        with Image.open(manifest.path_of(path)) as picture:
            film = picture.convert("L")
        for split, shown in (("train", film), ("test", KINDS[kind][0](film, rng))):
            name = f"{split}-{number}.png"
            shown.save(folder / name)
            rows.append({"path": name, "split": split, "patient": f"{split} {number}"})
        pairs[frozenset((len(rows) - 2, len(rows) - 1))] = kind
    for number, path in enumerate(rest):
        with Image.open(manifest.path_of(path)) as picture:
            picture.convert("L").save(folder / f"other-{number}.png")
        rows.append({"path": f"other-{number}.png", "split": "test", "patient": f"other {number}"})
    return Manifest(pd.DataFrame(rows), DatasetMeta(name="planted copies", root=str(folder)), folder), pairs


def figures_of(
    pairs: set[frozenset[int]], planted: dict[frozenset[int], str], n: int, seconds: tuple[float, float]
) -> list[Figure]:
    """What is published."""
    protocol = (
        f"{n} films of Kermany et al., copies in another split under another patient's name; limits chosen on other "
        "films; Wilson 95 % interval"
    )
    figures = []
    for kind, (_, bar) in KINDS.items():
        of_kind = [pair for pair, what in planted.items() if what == kind]
        found = wilson(sum(pair in pairs for pair in of_kind), len(of_kind))
        figures.append(Figure(f"recall of copies: {kind}", _value(found.value), "share", protocol, len(of_kind),
                              found.low, found.high, bar))  # fmt: skip
    right = wilson(len(pairs & set(planted)), len(pairs))
    figures.append(Figure("precision of pairs found", _value(right.value), "share", protocol, len(pairs), right.low,
                          right.high, ">= 0.99"))  # fmt: skip
    for what, spent in zip(("reading", "comparing"), seconds, strict=True):
        figures.append(Figure(f"processor time of {what} {n} films", spent, "s", "one thread, process time", n))
    return figures


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


if __name__ == "__main__":
    main()
