"""``wetread demo``: the whole product once, on synthetic studies, in about a minute and a half.

Each step calls the function behind the verb that it names, so what is shown here is what the verbs do.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from rich.console import Console

    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.result import EvaluationResult
    from wetread.training.fit import TrainingResult

__all__ = ["DemoPlan", "command", "run_demo"]

_MARK = ".wetread-demo"
"""Only a folder with this file in it is ever replaced."""
_STEPS = 6
_TRUTH = (
    "What was planted: nothing in study 1, a dense opacity in study 2, a faint one in study 3. "
    "The letter got a reason and no probability: the gate refused it."
)
_LETTER = (
    "Dear colleague,",
    "thank you for sending this patient to our clinic. The films",
    "of the chest were taken in two planes. We shall write again",
    "when the final report is there. Until then the treatment may",
    "go on as before, and the next visit can be in six weeks.",
    "With kind regards,",
    "the outpatient clinic",
)


@dataclass(frozen=True)
class DemoPlan:
    """How large the demonstration is: ``images`` films, square, of ``size_px``, read at that size.

    A small opacity is a few pixels wide below 300 pixels; at 128 the AUROC on test falls by a tenth.
    """

    images: int = 400
    size_px: int = 320
    seed: int = 7
    resamples: int = 500


def command(
    keep: Annotated[Path | None, typer.Option(help="New folder for everything the demo makes [demo].")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the pages in a browser at the end.")] = False,
) -> None:
    """Make synthetic studies, train on them, evaluate, read three new studies and a letter.

    Nothing is downloaded. The pages lie in the folder demo, which the next demo replaces.
    """
    from wetread.cli.console import stdout

    folder = keep or Path("demo")
    _make_room(folder, replace=keep is None)
    pages = run_demo(folder, DemoPlan(), stdout())
    if show:
        import webbrowser

        for page in pages:
            webbrowser.open(page.resolve().as_uri())


def run_demo(folder: Path, plan: DemoPlan, console: Console) -> tuple[Path, ...]:
    """Run all steps in ``folder``, which exists and is empty; return the pages that were made."""
    begin = time.perf_counter()
    (folder / _MARK).touch()
    studies = _make_studies(folder, plan, console)
    manifest = _import_and_split(folder, studies, plan, console)
    trained = _train(folder, manifest, plan, console)
    evaluation = _evaluate(folder, manifest, trained, plan, console)
    reads = _read(folder, trained, plan, console)
    _farewell(folder, (reads, evaluation), time.perf_counter() - begin, console)
    return reads, evaluation


def _make_room(folder: Path, *, replace: bool) -> None:
    """Create ``folder``, replacing an earlier demo's if ``replace``; anything else there is left alone."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not (replace and (folder / _MARK).is_file()):
            raise UsageError(
                expected("a new folder for the demo", f"{folder}, which exists", "name another with --keep")
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _step(console: Console, number: int, title: str, verb: str) -> None:
    from rich.rule import Rule
    from rich.text import Text

    console.print()
    console.print(Rule(Text(f"{number} of {_STEPS}  {title}", "bold"), align="left", style="dim"))
    if verb:
        console.print(f"$ {verb}", style="cyan", markup=False, soft_wrap=True)


def _make_studies(folder: Path, plan: DemoPlan, console: Console) -> Path:
    """Write DICOM films of two hospitals, with and without consolidation, and a table of labels."""
    from wetread.cli.console import progress
    from wetread.datasets.phantoms import SOURCES, DatasetPlan, make_dataset

    _step(console, 1, "Studies: synthetic chest films of two hospitals, as CR DICOM", "")
    sources = tuple(SOURCES)[:2]
    films = folder / "films"
    with progress("Making films") as advance:
        made = make_dataset(
            films,
            DatasetPlan(
                n=plan.images,
                seed=plan.seed,
                sources=sources,
                size_px=plan.size_px,
                masks=False,
                fractions={},
            ),
            advance,
        )
    counts = made.table["label"].value_counts()
    words = ", ".join(f"{counts[name]} {name}" for name in made.meta.classes)
    console.print(f"{plan.images} films of {made.table['patient'].nunique()} patients: {words}.", markup=False)
    console.print(f"From {' and '.join(sources)}. They are a projection model, not pictures of anybody.", markup=False)
    return films


def _import_and_split(folder: Path, films: Path, plan: DemoPlan, console: Console) -> Manifest:
    from wetread.cli.console import spinner
    from wetread.datasets.importers.base import ImportOptions
    from wetread.datasets.importers.registry import import_dataset
    from wetread.datasets.splits import make_split

    labels = films / "labels.csv"
    verb = f"wetread dataset import {films} --layout dicom --labels {labels} --negative normal"
    _step(console, 2, "Import the films and divide them by patient", verb)
    with spinner("Reading headers"):
        found = import_dataset(
            films,
            layout="dicom",
            options=ImportOptions(labels=labels, negative="normal"),
            name="demo",
        )
        manifest = make_split(found.manifest, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=plan.seed)
        manifest.save(folder / "dataset")
    table = manifest.table
    for split in ("train", "val", "test"):
        part = table[table["split"] == split]
        console.print(f"  {split:5} {len(part):4} films of {part['patient'].nunique():3} patients", markup=False)
    console.print("No patient is in two of them; the test films are not touched until step 4.", markup=False)
    return manifest


def _train(folder: Path, manifest: Manifest, plan: DemoPlan, console: Console) -> TrainingResult:
    from wetread.training.config import TrainingConfig
    from wetread.training.fit import train

    settings = f"--mode features --image-size {plan.size_px} --seed {plan.seed}"
    _step(console, 3, "Train a reader", f"wetread train {folder / 'dataset'} {settings}")
    config = TrainingConfig(
        mode="features",
        image_size=plan.size_px,
        seed=plan.seed,
        name="demo",
        tensorboard=False,
        population="Synthetic phantoms from two sources; no persons.",
        intended_use="A demonstration on synthetic films. Never for images of people.",
        limits=("It has seen phantoms only and knows nothing about people.",),
        modalities=("CR", "DX", "DR"),
        body_parts=("CHEST",),
    )
    with _stages() as progress:
        trained = train(manifest, config, folder / "run", progress=progress)
    point = trained.card.operating_point(trained.card.labels[0])
    console.print(f"{config.model} with ImageNet weights looks at each film once; a linear head learns.", markup=False)
    if point is not None:
        console.print(f"Threshold {point.threshold:.3f}, chosen on validation ({point.name}).", markup=False)
    return trained


def _evaluate(folder: Path, manifest: Manifest, trained: TrainingResult, plan: DemoPlan, console: Console) -> Path:
    """Evaluate on the test split and write the page; every figure comes with its interval."""
    from wetread.cli.console import spinner
    from wetread.evaluation.plots import result_plots
    from wetread.evaluation.protocol import evaluate
    from wetread.evaluation.result import EvaluationSpec
    from wetread.models.bundle import load_reader
    from wetread.provenance import atomic_folder
    from wetread.reporting.html import render_evaluation
    from wetread.training.predictions import predict_manifest

    verb = f"wetread evaluate {trained.run_folder} --data {folder / 'dataset'} --by source"
    _step(console, 4, "Evaluate it on patients it has never seen", verb)
    card = trained.card
    points = sorted(card.operating_points, key=lambda point: point.name != card.default_operating_point)
    spec = EvaluationSpec(
        task=card.task,
        classes=card.classes,
        operating_points=tuple(points),
        by=("source",),
        split="test",
        source=manifest.meta.name,
        reader=f"{card.name} {card.version}",
        resamples=plan.resamples,
    )
    with spinner("Evaluating"):
        table = predict_manifest(load_reader(trained.reader_folder), manifest, "test")
        result = evaluate(table, spec, manifest=manifest)
        page = render_evaluation(result, result_plots(result), audit_verdict=card.audit_verdict)
        with atomic_folder(folder / "evaluation") as part:
            (part / "results.json").write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
            (part / "report.html").write_text(page, encoding="utf-8")
    _print_figures(result, card.default_operating_point, console)
    return folder / "evaluation" / "report.html"


def _print_figures(result: EvaluationResult, point: str, console: Console) -> None:
    from wetread.reporting.numbers import estimate

    label = result.labels[0]
    console.print(f"{label.positives} positive and {label.negatives} negative test films:", markup=False)
    console.print(f"  AUROC        {estimate(label.metrics.get('auroc'))}", markup=False)
    for one in label.operating_points:
        if one.name == point:
            for name in ("sensitivity", "specificity"):
                console.print(f"  {name:12} {estimate(one.metrics.get(name))}", markup=False)
    console.print("In brackets: 95 % intervals. So few films leave them wide.", markup=False)


def _read(folder: Path, trained: TrainingResult, plan: DemoPlan, console: Console) -> Path:
    """Read three films of new patients and a scanned letter; write one page for each and an overview."""
    from wetread.cli.read import print_reads, read_into
    from wetread.reading.feed import find_sources
    from wetread.reading.read import ReadOptions

    inbox = folder / "inbox"
    _write_inbox(inbox, plan)
    verb = f"wetread read {inbox} --reader {trained.run_folder} --out {folder / 'reads'}"
    _step(console, 5, "Read three new studies, and a letter that got among them", verb)
    out = folder / "reads"
    reads, failures = read_into(
        trained.reader_folder, trained.card, find_sources([inbox]), ReadOptions(pictures=True), out
    )
    print_reads(reads, failures, trained.card, out)
    console.print(_TRUTH, markup=False)
    return out / "index.html"


def _write_inbox(inbox: Path, plan: DemoPlan) -> None:
    import numpy as np

    from wetread.datasets.phantoms import SOURCES, Finding, render, sample_spec, write_dicom

    inbox.mkdir()
    rng = np.random.default_rng([plan.seed, 99])  # patients that no split has
    findings = ((), (Finding("consolidation", 0.8, "right", (0.5, 0.7)),), (Finding("consolidation", 0.35, "left"),))
    for number, planted in enumerate(findings, start=1):
        spec = sample_spec(rng, findings=planted, source=tuple(SOURCES)[number % 2], size_px=plan.size_px)
        write_dicom(render(spec), inbox / f"study-{number}.dcm")
    _write_letter(inbox / "letter.png")


def _write_letter(path: Path) -> None:
    """A scanned page: what ends up among films in real life."""
    from PIL import Image as PilImage
    from PIL import ImageDraw, ImageFont

    page = PilImage.new("L", (620, 877), 249)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(15)
    for number, line in enumerate(_LETTER * 3):
        draw.text((60, 80 + 34 * number), line, font=font, fill=35)
    page.save(path)


def _farewell(folder: Path, pages: tuple[Path, ...], seconds: float, console: Console) -> None:
    from rich.panel import Panel
    from rich.text import Text

    _step(console, 6, f"Done in {seconds:.0f} s: what to look at, and what to type next", "")
    lines = [
        "Pages",
        *(f"  {page}" for page in pages),
        f"  {folder / 'run' / 'reader' / 'README.md'}  (the card of the reader)",
        "",
        "Your own images, in folders named after their classes, or with a table of labels:",
        "  wetread dataset import FOLDER --out datasets/mine",
        "",
        "Or chest films, with the reader that comes with wetread:",
        "  wetread read FILE --out reads",
    ]
    console.print(Panel(Text("\n".join(lines), overflow="fold"), border_style="dim", expand=False))
    console.print("Research use only. Not a diagnosis.", style="dim")


@contextmanager
def _stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show one progress bar for each stage of the training, after the other."""
    from contextlib import ExitStack

    from wetread.cli.console import progress

    with ExitStack() as stack:
        current = ""
        advance: Callable[[int, int], None] | None = None

        def follow(stage: str, done: int, total: int) -> None:
            nonlocal current, advance
            if stage != current or advance is None:
                stack.close()
                current, advance = stage, stack.enter_context(progress(stage.capitalize()))
            advance(done, total)

        yield follow
