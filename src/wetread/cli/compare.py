"""``wetread compare``: several networks, guides and seeds on one split, in one table that can be gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.cli.console import print_json, staged_progress, stdout, warn
from wetread.errors import UsageError, WetreadError, expected

if TYPE_CHECKING:
    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.result import ComparisonResult
    from wetread.training.grid import GridConfig, GridRow

__all__ = ["command"]


def command(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder with train, val and test splits.")],
    config: Annotated[Path | None, typer.Option(help="TOML file with networks, guides, seeds and settings.")] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="A timm network, cnn, knn, svm or logistic; may be repeated.")
    ] = None,
    guide: Annotated[list[str] | None, typer.Option(help="none, mask, crop, attention or background.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed of a run; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs; finished ones are kept.")] = Path("runs/compare"),
    images: Annotated[int, typer.Option(help="Test films on the explanation sheets.", min=0, max=32)] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Train and test every combination on the same images: accuracy with intervals, cost, confusion, heat maps.

    Broken off, the same command goes on where it stopped. A reader is called better than the first one only where the
    paired interval excludes 0 after correction for the number of comparisons.

    Example: wetread compare datasets/films --network cnn --network vgg16 --seed 0 --seed 1 --out runs/s6
    """
    from wetread.cli.compare_report import write_compare
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.splits import assert_no_leak

    grid = _grid(config, network, guide, seed)
    manifest = load_manifest(dataset)
    assert_no_leak(manifest)
    rows, failures = _run(manifest, grid, out)
    if not rows:
        raise WetreadError(expected("at least one finished reader", f"{len(failures)} failures", failures[0]))
    against = _against_first(out, rows)
    write_compare(out, manifest, rows, against, images)
    if as_json:
        print_json({"rows": [row.model_dump(mode="json") for row in rows], "failures": failures})
    else:
        _print(rows, against, out)
    if failures:
        raise typer.Exit(1)


def _grid(
    config: Path | None, network: list[str] | None, guide: list[str] | None, seed: list[int] | None
) -> GridConfig:
    from wetread.training.grid import GridConfig, load_grid

    asked: dict[str, Any] = {"networks": network, "guides": guide, "seeds": seed}
    given = {key: tuple(value) for key, value in asked.items() if value}
    if config is not None:
        return load_grid(config).model_copy(update=given)
    if "networks" not in given:
        raise UsageError(expected("networks to compare", "none", "name them with --network, or in a --config"))
    return GridConfig.model_validate(given)


def _run(manifest: Manifest, grid: GridConfig, out: Path) -> tuple[list[GridRow], list[str]]:
    """Run every combination; one that fails is recorded and does not end the others."""
    from wetread.settings import load_settings
    from wetread.training.grid import grid_of, run_one

    paths = load_settings().paths
    planned = grid_of(grid)
    rows: list[GridRow] = []
    failures: list[str] = []
    for number, config in enumerate(planned, 1):
        name = str(config.name)
        with staged_progress() as advance:

            def told(stage: str, done: int, total: int, prefix: str = f"{number}/{len(planned)} {name}") -> None:
                advance(f"{prefix}: {stage}", done, total)

            try:
                rows.append(run_one(manifest, config, out / name, paths.cache, [paths.readers], told))
            except WetreadError as error:
                warn(f"{name}: {error}")
                failures.append(f"{name}: {error}")
    return rows, failures


def _against_first(out: Path, rows: list[GridRow]) -> dict[str, ComparisonResult]:
    """Each other reader against the first, paired on the test images."""
    from wetread.evaluation.compare import compare
    from wetread.evaluation.result import EvaluationSpec
    from wetread.evaluation.table import read_predictions
    from wetread.models.bundle import load_card
    from wetread.training.grid import PREDICTIONS

    def of(row: GridRow) -> tuple[Any, EvaluationSpec]:
        card = load_card(out / row.folder / "reader")
        spec = EvaluationSpec(
            task=card.task, classes=card.classes, operating_points=card.operating_points, split="test", resamples=200
        )
        return read_predictions(str(out / row.folder / PREDICTIONS)), spec

    first, *others = rows
    table, spec = of(first)
    found = {}
    for row in others:
        other, its = of(row)
        found[row.name] = compare(table, other, (spec, its), (first.name, row.name))
    return found


def _print(rows: list[GridRow], against: dict[str, ComparisonResult], out: Path) -> None:
    from rich.table import Table

    from wetread.cli.compare_report import PAGE, verdict_words
    from wetread.reporting.numbers import estimate

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("reader", "accuracy", "balanced", "AUROC", "parameters", "training", "images/s", "audit", "against"):
        table.add_column(name, overflow="fold")
    for row in rows:
        speed = "-" if row.images_per_s is None else f"{row.images_per_s:.0f}"
        figures = (estimate(one) for one in (row.accuracy, row.balanced_accuracy, row.auroc))
        cost = (f"{row.parameters / 1e6:.1f} M", f"{row.training_s:.0f} s", speed)
        table.add_row(row.name, *figures, *cost, row.audit_verdict, verdict_words(against.get(row.name), rows[0].name))
    console = stdout()
    console.print(table)
    console.print(f"Page: {out / PAGE}", markup=False)
