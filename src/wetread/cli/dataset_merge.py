"""``wetread dataset merge``: several data sets as one, with their origin as source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wetread.cli.console import print_json, stdout
from wetread.errors import DatasetRefused, UsageError, expected

__all__ = ["command"]


def command(
    datasets: Annotated[list[Path], typer.Argument(help="Two or more dataset folders.", metavar="DATASET…")],
    out: Annotated[Path, typer.Option(help="New dataset folder to write.")],
    classes: Annotated[str, typer.Option(help="Classes of the merged set, the negative one first: A,B,C.")],
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="[SET:]THEIRS=OURS", help="A class of one set, or of all, under its common name."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the merged set; default that of the folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Put several data sets into one table; images stay where they are.

    The source of each image becomes the data set it came from, so that `wetread audit` can say whether a reader learned
    the hospital instead of the disease. Images without a label are left out; divide the result by patient afterwards.
    """
    from wetread.datasets.manifest import load_manifest
    from wetread.datasets.merge import merge

    if out.exists():
        raise DatasetRefused(expected("a new folder for --out", f"{out}, which exists", "name another"))
    wanted = [one.strip() for one in classes.split(",") if one.strip()]
    merged = merge([load_manifest(one) for one in datasets], name or out.name, wanted, _renamed(rename or []))
    merged.save(out)
    table = merged.table
    counts = {
        str(source): {one: int((rows["label"] == one).sum()) for one in wanted}
        for source, rows in table.groupby("source")
    }
    if as_json:
        return print_json({"dataset": str(out), "images": len(table), "per_source": counts})
    console = stdout()
    for source, each in counts.items():
        console.print(f"{source}: " + ", ".join(f"{n} {one}" for one, n in each.items()), markup=False)
    console.print(f"{len(table)} images: {out}\nNext: wetread dataset split {out}", markup=False)
    return None


def _renamed(given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given:
        theirs, separator, ours = item.rpartition("=")
        if not (separator and theirs and ours):
            raise UsageError(expected("--rename as THEIRS=OURS", repr(item), "e.g. --rename 'No Finding=NORMAL'"))
        pairs[theirs] = ours
    return pairs
