"""How long a person waits for ``wetread --help``, against an interpreter that does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.common import Figure, arguments, run_child, summarise, write_figures

REPEATS = 10
BAR = "<= 0.3"


def main() -> None:
    options = arguments(__doc__, "results/startup.csv").parse_args()
    wetread = Path(sys.executable).with_name("wetread")
    figures = [
        measure("python -c pass", [sys.executable, "-c", "pass"]),
        measure("wetread --help", [wetread, "--help"], BAR),
        measure("wetread --version", [wetread, "--version"], BAR),
        measure("wetread models list", [wetread, "models", "list"]),
    ]
    write_figures(options.out, figures)
    for figure in figures:
        print(f"{figure.what:24} {figure.value:.3f} s  ({figure.low:.3f} to {figure.high:.3f})  {figure.bar}")


def measure(what: str, command: list[str | Path], bar: str = "") -> Figure:
    protocol = f"median of {REPEATS} new processes, wall clock, after one unmeasured start"
    run_child(command)
    seconds = []
    for _ in range(REPEATS):
        child = run_child(command)
        if child.exit_code:
            raise SystemExit(f"expected {what} to end well, got exit code {child.exit_code}: {child.stderr}")
        seconds.append(child.seconds)
    return summarise(what, seconds, "s", protocol, bar)


if __name__ == "__main__":
    main()
