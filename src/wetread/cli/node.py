"""``wetread node``: receive studies, read them, send the results back."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.errors import UsageError, WetreadError, expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from wetread.pacs.facts import ResultFacts
    from wetread.pacs.node import StudyAnswer
    from wetread.pacs.store import StoredObject
    from wetread.reading.feed import Source
    from wetread.reading.organs import Segmented
    from wetread.reading.read import ReadResult
    from wetread.settings import NodeRule, NodeSettings

__all__ = ["app", "result_facts", "study_reader"]

app = typer.Typer(
    name="node", help="Receive DICOM studies, read them, send the results back.", invoke_without_command=True
)

_FOLDER = typer.Option("--folder", help="Folder of the node [node.folder].")


@app.callback()
def start(
    context: typer.Context,
    folder: Annotated[Path | None, _FOLDER] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [node.host].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [node.port].")] = None,
    title: Annotated[str | None, typer.Option(help="AE title [node.title].")] = None,
    receive_only: Annotated[bool, typer.Option("--receive-only", help="Store objects and read nothing.")] = False,
) -> None:
    """Receive DICOM studies, read them by the rules of the settings, send the results back.

    Ends with SIGINT or SIGTERM, after what is under way has arrived.

    Example: wetread node --port 11112
    """
    if context.invoked_subcommand is not None:
        return
    from wetread.cli.console import stdout
    from wetread.pacs.node import Node
    from wetread.pacs.results import PICTURE_KINDS

    flags = {"node.folder": folder, "node.host": host, "node.port": port, "node.title": title}
    settings = _settings(flags)
    shown = any(kind in PICTURE_KINDS for remote in settings.remotes.values() for kind in remote.results)
    node = Node(settings, None if receive_only else study_reader(pictures=shown))
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        found = node.start()
        reads = "reads nothing" if receive_only else f"{len(settings.rules)} rules"
        line = f"{settings.title} listens on {settings.host}:{found}, {reads}, folder {settings.folder}"
        stdout().print(line, markup=False, soft_wrap=True)
        stdout().print("Research use only. Not a diagnosis.", style="dim")
        ended.wait()
    finally:
        node.stop()


@app.command("explain")
def explain_command(
    studies: Annotated[list[str] | None, typer.Argument(help="Study Instance UIDs [all].", metavar="STUDY…")] = None,
    folder: Annotated[Path | None, _FOLDER] = None,
) -> None:
    """Say for studies that were received which rule takes each, and why. Nothing is read or sent.

    Example: wetread node explain 1.2.3.4
    """
    from wetread.cli.console import stdout
    from wetread.pacs.routing import explain, study_facts
    from wetread.pacs.store import ObjectStore

    settings = _settings({"node.folder": folder})
    store = ObjectStore(settings.folder, shared=True)
    try:
        wanted = studies or [row[0] for row in store.ledger.read("SELECT study FROM studies ORDER BY last_arrival")]
        for study in wanted:
            facts = study_facts(store.ledger, study)
            if facts is None:
                raise UsageError(expected("a study that was received", f"'{study}'", "run it without a study"))
            for line in _lines(study, explain(settings.rules, facts)):
                stdout().print(line, markup=False, soft_wrap=True)
    finally:
        store.close()


@app.command("check")
def check_command(folder: Annotated[Path | None, _FOLDER] = None) -> None:
    """Hash every stored object again and verify the log of events; exit code 1 if something is wrong.

    Example: wetread node check
    """
    from wetread.cli.console import stderr, stdout
    from wetread.pacs.node import Node

    node = Node(_settings({"node.folder": folder}), shared=True)
    try:
        health = node.check()
    finally:
        node.stop()
    line = (
        f"{health.objects} objects, {len(health.broken)} broken, {health.waiting} to send, {health.dead} dead letters"
    )
    stdout().print(line, markup=False)
    for instance in health.broken:
        stderr().print(f"broken: {instance}", style="red", markup=False)
    if health.first_bad_event is not None:
        stderr().print(f"the log of events is broken at number {health.first_bad_event}", style="red", markup=False)
    if health.broken or health.first_bad_event is not None:
        raise typer.Exit(1)


@app.command("letters")
def letters_command(
    folder: Annotated[Path | None, _FOLDER] = None,
    again: Annotated[bool, typer.Option("--again", help="Try all of them again.")] = False,
) -> None:
    """List results that could not be sent (dead letters).

    Example: wetread node letters --again
    """
    from wetread.cli.console import stdout
    from wetread.pacs.node import Node

    node = Node(_settings({"node.folder": folder}), shared=True)
    try:
        letters = node.outbox.dead()
        for number, kind, target, error in letters:
            stdout().print(f"{number}: {kind} to {target}: {error}", markup=False, soft_wrap=True)
        revived = node.outbox.revive() if again else 0
        stdout().print(f"{len(letters)} dead letters, {revived} will be tried again", markup=False)
    finally:
        node.stop()


class study_reader:  # noqa: N801 - a function with a memory
    """Reads studies for the node; every reader is loaded once.

    ``pictures`` False: no heat maps, for a node whose remotes take none; its results then have no picture of one.
    """

    def __init__(self, *, pictures: bool = True) -> None:
        self.pictures = pictures
        self._readers: dict[str, Any] = {}
        self._segmenters: dict[str, Any] = {}

    def __call__(self, rule: NodeRule, images: Sequence[StoredObject]) -> StudyAnswer:
        """Read the images of one study by the reader of ``rule``, and find their organs by its segmenter."""
        from wetread.pacs.node import StudyAnswer
        from wetread.reading.feed import ReadFailure, Source
        from wetread.reading.read import ReadOptions, read_images

        options = ReadOptions(
            operating_point=rule.operating_point, batch_size=4, heatmaps=rule.heat_maps, pictures=self.pictures
        )
        sources = [Source(one.path, f"image {number}") for number, one in enumerate(images, start=1)]
        results = list(read_images(self._reader(rule.reader), sources, options))
        organs = self._organs(rule.segmenter, sources)
        pairs = list(zip(images, results, strict=True))
        return StudyAnswer(
            facts=[
                (stored, result_facts(one, organs.get(stored.path)))
                for stored, one in pairs
                if not isinstance(one, ReadFailure)
            ],
            failures=[one.message for one in results if isinstance(one, ReadFailure)],
        )

    def _organs(self, name: str, sources: Sequence[Source]) -> dict[Path, Segmented]:
        """By file; an image that cannot be read is told of by its reader."""
        from wetread.reading.organs import Segmented, segment_images

        if not name:
            return {}
        found = segment_images(self._segmenter(name), sources)
        return {one.source.path: one for one in found if isinstance(one, Segmented)}

    def _reader(self, name: str) -> Any:
        if name not in self._readers:
            from wetread.models.bundle import find_reader, load_reader
            from wetread.runtime import prepare_torch
            from wetread.settings import load_settings

            settings = load_settings()
            prepare_torch(settings.runtime.threads)
            self._readers[name] = load_reader(find_reader(name, [settings.paths.readers]))
        return self._readers[name]

    def _segmenter(self, name: str) -> Any:
        if name not in self._segmenters:
            from wetread.models.bundle import find_reader, load_segmenter
            from wetread.settings import load_settings

            self._segmenters[name] = load_segmenter(find_reader(name, [load_settings().paths.readers]))
        return self._segmenters[name]


def result_facts(result: ReadResult, organs: Segmented | None = None) -> ResultFacts:
    """What the result objects of one image are made from: the record, its pictures as arrays, and its organs."""
    import io

    import numpy as np
    from PIL import Image

    from wetread.explain.overlay import overlay
    from wetread.pacs.facts import ResultFacts

    read, masks, segmenter = result.read, {}, None
    if organs is not None:
        masks, segmenter = organs.masks, organs.reading.model
        if not read.measures and read.gate.passed:
            read = read.model_copy(update={"measures": organs.reading.measures})
    if result.film_png is None:
        return ResultFacts(read=read, masks=masks, segmenter=segmenter)
    film = np.asarray(Image.open(io.BytesIO(result.film_png)).convert("L"))
    heat = {}
    for label, png in result.heatmaps.items():
        small = Image.fromarray(_heat_of(np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))))
        heat[label] = np.asarray(small.resize((film.shape[1], film.shape[0]), Image.Resampling.BILINEAR))
    overlays = {label: overlay(film, one) for label, one in heat.items()}
    return ResultFacts(read=read, film=film, heat=heat, overlays=overlays, masks=masks, segmenter=segmenter)


def _heat_of(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The heat, 0-1 in steps of 1/255, that a picture shows: the colours of the scale are all different."""
    import numpy as np

    from wetread.explain.overlay import colour_scale

    scale = np.ascontiguousarray(colour_scale()).view(np.uint32)[:, 0]
    order = np.argsort(scale)
    words = np.ascontiguousarray(picture).view(np.uint32)[..., 0]
    level = order[np.searchsorted(scale[order], words).clip(0, len(scale) - 1)]
    if not np.array_equal(scale[level], words):
        raise WetreadError(expected("a heat map in the colours of the scale", "others", "read the film again"))
    found: NDArray[np.float32] = (level / 255).astype(np.float32)
    return found


def _lines(study: str, verdicts: Sequence[Any]) -> list[str]:
    lines = [f"study {study}"]
    for verdict in verdicts:
        if not verdict.reached:
            lines.append(f"  rule {verdict.rule.name}: not reached")
            continue
        end = f"takes it: reader {verdict.rule.reader}, to {', '.join(verdict.rule.to) or 'nobody'}"
        lines.append(f"  rule {verdict.rule.name}: {end if verdict.fits else 'does not take it'}")
        lines += [f"    {condition}" for condition in verdict.conditions]
    if not any(verdict.fits for verdict in verdicts):
        lines.append("  no rule takes it: it is stored and not read")
    return lines


def _settings(flags: dict[str, Any]) -> NodeSettings:
    from wetread.settings import load_settings

    return load_settings(flags).node
