"""``wetread node``: receive studies, read them, send the results back."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.errors import UsageError, expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wetread.pacs.answer import ReadStudies, StudyAnswer, StudyTask
    from wetread.pacs.store import StoredObject
    from wetread.reading.feed import ReadFailure, Source
    from wetread.reading.organs import Segmented
    from wetread.reading.read import ReadResult
    from wetread.settings import NodeSettings, Settings

__all__ = ["app", "study_reader"]

_BATCH = 8
"""Images read together: twice as many are decoded ahead, and those of a large detector take 40 MB each."""

app = typer.Typer(
    name="node", help="Receive DICOM studies, read them, send the results back.", invoke_without_command=True
)

_FOLDER = typer.Option("--folder", help="Folder of the node [node.folder].")


@app.callback()
def command(
    context: typer.Context,
    folder: Annotated[Path | None, _FOLDER] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [node.host].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [node.port].")] = None,
    title: Annotated[str | None, typer.Option(help="AE title [node.title].")] = None,
    receive_only: Annotated[bool, typer.Option("--receive-only", help="Store objects and read nothing.")] = False,
    service: Annotated[
        bool,
        typer.Option("--service", help="Put studies into the worklist of `wetread serve`, whose workers read them."),
    ] = False,
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop with the parent.", hidden=True)] = False,
) -> None:
    """Receive DICOM studies, read them by the rules of the settings, send the results back.

    Ends with SIGINT or SIGTERM, after what is under way has arrived.

    Example: wetread node --port 11112
    """
    if context.invoked_subcommand is not None:
        return
    from wetread.cli.console import stdout
    from wetread.pacs.node import Node
    from wetread.settings import load_settings

    if receive_only and service:
        raise UsageError(expected("one of --receive-only and --service", "both", "leave one out"))
    flags = {"node.folder": folder, "node.host": host, "node.port": port, "node.title": title}
    settings = load_settings(flags)
    ended = threading.Event()
    with ExitStack() as stack:
        if service:
            node = Node(settings.node, _reception(settings, stack))
        else:
            node = Node(settings.node, None if receive_only else study_reader(), apart=True)
        stack.callback(node.stop)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        if with_parent:
            from wetread.service.server import stop_with_parent

            stop_with_parent(ended)
        found, chosen = node.start(), settings.node
        reads = "reads nothing" if receive_only else f"{len(chosen.rules)} rules"
        line = f"{chosen.title} listens on {chosen.host}:{found}, {reads}, folder {chosen.folder}"
        stdout().print(line, markup=False, soft_wrap=True)
        stdout().print("Research use only. Not a diagnosis.", style="dim")
        ended.wait()


def _reception(settings: Settings, stack: ExitStack) -> ReadStudies:
    """Has studies read by the workers of the service."""
    from wetread.service.context import open_service
    from wetread.service.reception import Reception

    service = open_service(settings)
    stack.callback(service.close)
    return Reception(service)


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
    """Reads studies for the node; every reader is loaded once."""

    def __init__(self) -> None:
        self._readers: dict[str, Any] = {}
        self._segmenters: dict[str, Any] = {}

    def __call__(self, tasks: Sequence[StudyTask]) -> Iterator[StudyAnswer]:
        """Read studies of one rule by its reader, all in one stream, and find their organs by its segmenter."""
        from wetread.pacs.answer import StudyAnswer
        from wetread.reading.feed import Source
        from wetread.reading.read import ReadOptions, read_images

        rule, pictures = tasks[0].rule, tasks[0].pictures
        if rule is None:
            yield from (StudyAnswer() for _ in tasks)
            return
        options = ReadOptions(
            operating_point=rule.operating_point, batch_size=_BATCH, heatmaps=rule.heat_maps, pictures=pictures
        )
        studies = [
            [Source(one.path, f"image {number}") for number, one in enumerate(task.images, start=1)] for task in tasks
        ]
        results = read_images(self._reader(rule.reader), chain.from_iterable(studies), options)
        for task, sources in zip(tasks, studies, strict=True):
            found = list(islice(results, len(sources)))
            yield _answer(task.images, found, self._organs(rule.segmenter, sources))

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


def _answer(
    images: Sequence[StoredObject], results: Sequence[ReadResult | ReadFailure], organs: dict[Path, Segmented]
) -> StudyAnswer:
    """What one study gave."""
    from wetread.pacs.answer import StudyAnswer
    from wetread.pacs.drawing import Organs, result_facts
    from wetread.reading.feed import ReadFailure

    facts = []
    for stored, result in zip(images, results, strict=True):
        if not isinstance(result, ReadFailure):
            drawn = organs.get(stored.path)
            found = None if drawn is None else Organs(drawn.masks, drawn.reading.measures, drawn.reading.model)
            facts.append((stored, result_facts(result.read, result.film_png, result.heatmaps, found)))
    return StudyAnswer(facts, [one.message for one in results if isinstance(one, ReadFailure)])


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
