"""How long ``wetread dataset import`` and ``check`` take on a folder of images, and how much memory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks.common import Child, Figure, arguments, run_child, write_figures

PROTOCOL = (
    "one cold process for each command, as typed; import hashes every file, check decodes every image once "
    "and writes its pages; other work on the machine (see load) counts in"
)


def main() -> None:
    parser = arguments(__doc__, "results/dataset_check.csv")
    parser.add_argument("source", type=Path, help="folder of images")
    parser.add_argument("--workers", type=int, default=0, help="threads of check; 0: one per core")
    asked = parser.parse_args()
    figures = measure(asked.source, asked.workers)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:48} {figure.value:10.1f} {figure.unit:9} {figure.bar:8} {figure.met}")


def measure(source: Path, workers: int) -> list[Figure]:
    """Both commands once. A finding that blocks (exit code 3) is a result and no failure."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        first = wetread("import", source, "--out", made, allowed={0})
        second = wetread("check", made, "--workers", workers, allowed={0, 3})
        n = images_in(made)
    name = f"{source.resolve().name}, {n} images"
    total = first.seconds + second.seconds
    peak = max(first.peak_bytes, second.peak_bytes) / 2**20
    return [
        Figure(f"dataset import, {name}", first.seconds, "s", PROTOCOL),
        Figure(f"dataset check, {name}", second.seconds, "s", PROTOCOL),
        Figure(f"import and check, {name}", total, "s", PROTOCOL, bar="<= 60"),
        Figure(f"import and check, {name}", n / total, "images/s", PROTOCOL),
        Figure(f"peak memory, {name}", peak, "MiB", PROTOCOL, bar="<= 1024"),
    ]


def wetread(*words: object, allowed: set[int]) -> Child:
    """One run of ``wetread dataset``; anything but an allowed exit code ends the benchmark."""
    code = "from wetread.cli.main import main; main()"
    child = run_child([sys.executable, "-c", code, "dataset", *(str(word) for word in words)])
    if child.exit_code not in allowed:
        sys.exit(child.stderr or f"exit code {child.exit_code}")
    return child


def images_in(folder: Path) -> int:
    """Rows of the manifest that was made."""
    from wetread.datasets.manifest import load_manifest

    return len(load_manifest(folder).table)


if __name__ == "__main__":
    main()
