"""``wetread index``: past cases as one reader sees them, kept in a folder or a PostgreSQL database."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.cli.console import print_json, spinner, staged_progress, stdout, warn
from wetread.cli.similar import INDEX_HELP, WHERE_HELP, condition_of, load_for, look, print_neighbours
from wetread.defaults import DEFAULT_READER
from wetread.errors import UsageError, WetreadError, expected

if TYPE_CHECKING:
    from wetread.evaluation.retrieval import RetrievalResult
    from wetread.models.predict import Reader
    from wetread.retrieval.cases import CaseRows, EmbedPlan
    from wetread.retrieval.records import IndexCard, Skipped
    from wetread.retrieval.write import Changed

__all__ = ["app"]

app = typer.Typer(name="index", no_args_is_help=True, help="Keep past cases: build, add, search, delete, evaluate.")

_Index = Annotated[str, typer.Argument(help=INDEX_HELP, metavar="INDEX")]
_Data = Annotated[Path, typer.Argument(help="Dataset: an imported folder or a manifest.", metavar="DATASET")]
_Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]
_Failures = Annotated[Path | None, typer.Option(help="CSV to write the images to that could not be read.")]
_SHOWN = 10


@app.command()
def build(
    index: _Index,
    data: _Data,
    reader: Annotated[str, typer.Option(help="Name or folder of a reader.")] = DEFAULT_READER,
    level: Annotated[str, typer.Option(help="One embedding for each image or study.")] = "image",
    local: Annotated[
        bool, typer.Option("--local", help="One for each place of an image, for --region; takes more room.")
    ] = False,
    where: Annotated[
        str | None, typer.Option(help="Only images that fit, e.g. 'split=train'.", metavar="CONDITION")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index of that name.")] = False,
    failures: _Failures = None,
    as_json: _Json = False,
) -> None:
    """Embed the images of a data set and keep them with what is known of each.

    Exit code 1 if some images could not be read: the others are in the index.

    Example: wetread index build cases films --where split=train
    """
    from wetread.retrieval.embed import load_embedder
    from wetread.retrieval.locate import build_at, is_database
    from wetread.retrieval.write import refuse_taken

    if level not in ("image", "study"):
        raise UsageError(expected("--level image or study", repr(level), "set it to one"))
    if not is_database(index):
        refuse_taken(Path(index), overwrite)  # before the work
    loaded = load_embedder(reader, _shelves())
    plan = _plan(reader, where, kind="local" if local else "pooled", level=level)
    cases = _cases(loaded, data, plan)
    with spinner("Writing the index"):
        changed = build_at(index, cases, overwrite=overwrite)
    _tell(index, changed, cases.skipped, failures, as_json)


@app.command()
def add(
    index: _Index,
    data: _Data,
    where: Annotated[str | None, typer.Option(help="Only images that fit.", metavar="CONDITION")] = None,
    reader: Annotated[str | None, typer.Option(help="The reader that made the index [as it says].")] = None,
    failures: _Failures = None,
    as_json: _Json = False,
) -> None:
    """Add the images of a data set; those that the index has are left, changed files take the old ones' place."""
    from wetread.retrieval.locate import add_to

    opened, loaded = load_for(index, reader)
    card = opened.card
    cases = _cases(loaded, data, _plan(card.reader.source, where, kind=card.kind, level=card.level))
    with spinner("Writing the index"):
        changed = add_to(index, cases)
    _tell(index, changed, cases.skipped, failures, as_json)


@app.command()
def search(
    index: _Index,
    paths: Annotated[list[Path], typer.Argument(help="Image files or folders.", metavar="PATH…")],
    k: Annotated[int, typer.Option("-k", "--neighbours", help="How many cases.")] = 5,
    where: Annotated[str | None, typer.Option(help=WHERE_HELP, metavar="CONDITION")] = None,
    patient: Annotated[str | None, typer.Option(help="Whose films PATH are [from the file].")] = None,
    same_patient: Annotated[bool, typer.Option("--same-patient", help="Also cases of the same patient.")] = False,
    all_images: Annotated[bool, typer.Option("--all-images", help="Not only the nearest of each patient.")] = False,
    reader: Annotated[str | None, typer.Option(help="The reader that made the index [as it says].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each film on stdout.")] = False,
) -> None:
    """Name the cases most like many films; `wetread similar` shows them with pictures."""
    from wetread.imaging import find_images
    from wetread.retrieval.neighbours import similar_to_all
    from wetread.retrieval.records import SearchOptions

    options = SearchOptions(condition_of(where), same_patient, not all_images)
    opened, loaded = load_for(index, reader)
    asked, unread = look(opened, loaded, find_images(paths), patient)
    for one in similar_to_all(opened, [film.query for film in asked], k, options):
        if as_json:
            sys.stdout.write(one.model_dump_json() + "\n")
        else:
            print_neighbours(stdout(), one)
    for file, reason in unread:
        warn(f"{file.name}: {reason}")
    if unread:
        raise typer.Exit(1)


@app.command()
def delete(
    index: _Index,
    paths: Annotated[list[str] | None, typer.Argument(help="Paths as the index has them.", metavar="[PATH…]")] = None,
    where: Annotated[str | None, typer.Option(help="All that fit, e.g. 'patient=p17'.", metavar="CONDITION")] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Leave nothing of them on the disk: a large index is written anew.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Delete cases. An index of up to 100 000 vectors keeps nothing of them, a larger one with --purge."""
    from wetread.retrieval.locate import delete_from

    changed = delete_from(index, condition_of(where), paths or [], purge=purge)
    if as_json:
        return print_json({"deleted": changed.deleted, "count": changed.card.count})
    stdout().print(f"{changed.deleted} deleted, {changed.card.count} left: {_named(index)}", markup=False)
    return None


@app.command()
def show(
    index: _Index,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every file, also large ones that nobody touched.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Show whose embeddings an index holds, of what, and whether its files are whole."""
    from wetread.retrieval.locate import open_index

    opened = open_index(index, everything=verify)
    if as_json:
        return print_json(opened.card)
    _print_card(opened.card)
    return None


@app.command()
def evaluate(
    index: _Index,
    data: Annotated[
        Path | None, typer.Argument(help="Dataset to ask with [the index's own rows].", metavar="[DATASET]")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set to ask with.")] = "test",
    k: Annotated[int, typer.Option("-k", "--neighbours", help="How many cases are judged.", min=1)] = 5,
    where: Annotated[str | None, typer.Option(help=WHERE_HELP, metavar="CONDITION")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Also kNN as a classifier: a table for `wetread evaluate`.", metavar="FILE.parquet"),
    ] = None,
    knn: Annotated[int, typer.Option(help="Cases that vote in --predictions.", min=1)] = 15,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.", metavar="FILE.json")] = None,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=200, max=100_000)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    reader: Annotated[str | None, typer.Option(help="The reader that made the index [as it says].")] = None,
    as_json: _Json = False,
) -> None:
    """Judge an index: mAP, precision, recall, nDCG and kNN accuracy, beside random answers.

    Every query is asked without its patient; what the same patient would have added is shown apart.

    Example: wetread index evaluate cases films --split test
    """
    from wetread.datasets.manifest import load_manifest
    from wetread.provenance import atomic_file, write_json_atomically
    from wetread.retrieval.evaluate import Judgement, QuerySet, evaluate_index, knn_table, own_queries, queries_of
    from wetread.retrieval.index import FolderIndex
    from wetread.retrieval.locate import is_database
    from wetread.retrieval.where import Compare

    if is_database(index):
        raise UsageError(expected("an index in a folder", "one in a database", "build one in a folder to judge it"))
    asked: QuerySet
    if data is None:
        opened = FolderIndex(Path(index))
        asked = own_queries(opened)
    else:
        found, loaded = load_for(index, reader)
        assert isinstance(found, FolderIndex)  # noqa: S101  no database, asked above
        opened, card = found, found.card
        plan = _plan(card.reader.source, None, kind=card.kind, level=card.level)
        plan = replace(plan, where=Compare("split", "=", (split,)))
        with staged_progress() as advance:
            asked = queries_of(loaded, load_manifest(data), opened, plan, advance)
    judgement = Judgement(k, condition_of(where), resamples, seed)
    with staged_progress() as advance:
        result = evaluate_index(opened, asked, judgement, advance)
        table = None if predictions is None else knn_table(opened, asked, knn, advance)
    if out is not None:
        write_json_atomically(out, result)
    if table is not None and predictions is not None:
        with atomic_file(predictions) as part:
            table.to_parquet(part, index=False)
    print_json(result) if as_json else _print_result(result)


def _shelves() -> list[Path]:
    from wetread.settings import load_settings

    return [load_settings().paths.readers]


def _plan(source: str, where: str | None, **what: str) -> EmbedPlan:
    from wetread.retrieval.cases import EmbedPlan
    from wetread.settings import load_settings

    settings = load_settings()
    folder = Path(source)
    return EmbedPlan(
        where=condition_of(where),
        source=str(folder.resolve()) if folder.is_dir() else source,
        cache=settings.paths.cache,
        budget_bytes=settings.imaging.budget_bytes,
        **what,  # type: ignore[arg-type]
    )


def _cases(reader: Reader, data: Path, plan: EmbedPlan) -> CaseRows:
    from wetread.datasets.manifest import load_manifest
    from wetread.retrieval.cases import cases_of
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings

    prepare_torch(load_settings().runtime.threads)
    manifest = load_manifest(data)
    with staged_progress() as advance:
        return cases_of(reader, manifest, plan, advance)


def _tell(index: str, changed: Changed, skipped: tuple[Skipped, ...], failures: Path | None, as_json: bool) -> None:
    """Print what was done; exit code 1 where images were left out."""
    if failures is not None:
        _write_failures(failures, skipped)
    if as_json:
        print_json(
            {
                "added": changed.added,
                "replaced": changed.replaced,
                "known": changed.known,
                "skipped": [one.model_dump(mode="json") for one in skipped],
                "index": changed.card.model_dump(mode="json"),
            }
        )
    else:
        card = changed.card
        parts = [f"{changed.added} added"]
        parts += [f"{changed.replaced} replaced"] if changed.replaced else []
        parts += [f"{changed.known} known already"] if changed.known else []
        parts += [f"{len(skipped)} not read"] if skipped else []
        what = "studies" if card.level == "study" else "images"
        how = f", {card.ann.probes} of {card.ann.lists} cells searched" if card.ann else ""
        stdout().print(
            f"{', '.join(parts)}; {card.count} {what} of {card.patients} patients{how}: {_named(index)}", markup=False
        )
        for one in skipped[:_SHOWN]:
            warn(f"{one.path}: {one.reason}")
        if len(skipped) > _SHOWN:
            warn(f"and {len(skipped) - _SHOWN} more; --failures FILE.csv names them all")
    if skipped:
        raise typer.Exit(1)


def _write_failures(path: Path, skipped: tuple[Skipped, ...]) -> None:
    from wetread.provenance import atomic_file

    with atomic_file(path, WetreadError) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "error", "message"))
        writer.writerows((one.path, one.error, one.reason) for one in skipped)


def _named(index: str) -> str:
    from wetread.retrieval.locate import without_password

    return without_password(index)


def _print_card(card: IndexCard) -> None:
    console = stdout()
    kind = "whole images" if card.kind == "pooled" else f"{card.places[0]} x {card.places[1]} places of images"
    size = sum(mark.size_bytes for mark in card.files)
    ann = card.ann
    lines = {
        "cases": f"{card.count} ({card.level}s) of {card.patients} patients",
        "reader": f"{card.reader.name} {card.reader.version}, sha256 {card.reader.sha256[:12]}, {card.reader.source}",
        "embeddings": f"{kind}, {card.dimension} numbers each, distance 1 - cosine",
        "search": "every case compared"
        if ann is None
        else f"{ann.probes} of {ann.lists} cells, {ann.candidates} candidates compared exactly",
        "data sets": ", ".join(card.datasets),
        "classes": f"{', '.join(card.classes) or 'none'} ({card.task})",
        "columns": ", ".join(card.columns),
        "changed": f"{card.changed}, generation {card.generation}",
        "files": f"{len(card.files)}, {size / 2**20:.1f} MiB, whole",
    }
    console.print(card.name, style="bold", markup=False)
    for name, text in lines.items():
        console.print(f"  {name:11}{text}", markup=False, soft_wrap=True)


_WORDS = {
    "map": "mAP@{k}",
    "map_found": "mAP@{k}, over hits",
    "precision": "precision@{k}",
    "recall": "recall@{k}",
    "ndcg": "nDCG@{k}",
    "accuracy_at_1": "nearest is right",
    "knn_accuracy": "vote of {k} is right",
}


def _print_result(result: RetrievalResult) -> None:
    from rich.table import Table

    from wetread.reporting.numbers import estimate

    console = stdout()
    console.print(
        f"{result.n} queries ({result.queries}) of {result.patients} patients against {result.cases} cases of "
        f"{result.index}; relevant: {result.relevance}",
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", "all", *result.by_class, "by chance"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, words in _WORDS.items():
        classes = [estimate(found.get(name)) for found in result.by_class.values()]
        chance = result.chance.get(name)
        table.add_row(
            words.format(k=result.k),
            estimate(result.overall[name]),
            *classes,
            "" if chance is None else f"{chance:.3f}",
        )
    console.print(table)
    leak = result.leakage
    if leak is not None and leak.queries:
        change = leak.with_own["map"] - leak.without["map"]
        console.print(
            f"the same patient is left out: {leak.queries} queries have such cases; allowed, one would be the nearest "
            f"in {estimate(leak.nearest)} of all, and mAP@{result.k} would be {change:+.3f}",
            markup=False,
            soft_wrap=True,
        )
    elif leak is not None:
        console.print("no query has cases of the same patient in the index", markup=False)
    if result.n_without:
        warn(f"{result.n_without} queries have no relevant case and are in none of the figures")
    for text in result.warnings:
        warn(text)
