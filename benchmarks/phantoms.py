"""How many phantoms one core, and all cores, render in a second, without writing files."""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.common import Figure, arguments, write_figures
from wetread.datasets.phantoms import PhantomSpec, render, sample_finding, sample_spec
from wetread.runtime import in_order, keep_freed_memory

BAR = ">= 50"
ROUNDS = 5


def main() -> None:
    parser = arguments(__doc__, "results/phantoms.csv")
    parser.add_argument("--images", type=int, default=60, help="images in each round (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs="+", default=[224, 512, 1024], help="sides in pixels")
    options = parser.parse_args()
    figures = [f for size in options.size for f in measure(options.images, size)]
    write_figures(options.out, figures)
    print("what,n,size,images_per_s,protocol")
    for figure in figures:
        print(f'{figure.what},{options.images},{figure.what.split()[1]},{figure.value:.1f},"{figure.protocol}"')


def measure(n: int, size_px: int) -> list[Figure]:
    """Wall clock and processor time of the same rounds; half of the films carry a finding."""
    keep_freed_memory()
    specs = draw(n, size_px)
    for spec in specs[:5]:
        render(spec)
    wall, processor, together = [], [], []
    for _ in range(ROUNDS):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        for spec in specs:
            render(spec)
        wall.append(n / (time.perf_counter() - begin))
        processor.append(n / (time.process_time() - begin_cpu))
        begin = time.perf_counter()
        for _ in in_order(render, specs):
            pass
        together.append(n / (time.perf_counter() - begin))
    protocol = (
        f"render() of {n} specifications from all sources, half with a finding, one process, "
        f"glibc told to keep freed blocks; median of {ROUNDS} rounds after 5 unmeasured images"
    )
    bar = BAR if size_px == 512 else ""
    threads = f"{protocol}; one thread for each core, as a data set of phantoms is made"
    return [
        Figure(f"phantoms {size_px} px all cores", statistics.median(together), "images/s",
               threads, ROUNDS, min(together), max(together), bar),
        Figure(f"phantoms {size_px} px wall clock", statistics.median(wall), "images/s",
               f"{protocol}; one thread", ROUNDS, min(wall), max(wall), bar),
        Figure(f"phantoms {size_px} px processor time", statistics.median(processor), "images/s",
               f"{protocol}; images per second of this process's own processor time", ROUNDS,
               min(processor), max(processor), bar),
    ]  # fmt: skip


def draw(n: int, size_px: int) -> list[PhantomSpec]:
    rng = np.random.default_rng(0)
    return [
        sample_spec(rng, findings=(sample_finding(rng, "consolidation"),) if i % 2 else (), size_px=size_px)
        for i in range(n)
    ]


if __name__ == "__main__":
    main()
