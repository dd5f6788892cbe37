"""``wetread dataset import --pacs``: a cohort from an archive, de-identified on the way in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wetread.errors import PeerUnreachable, UsageError, expected

if TYPE_CHECKING:
    from wetread.deid.records import DeidReport
    from wetread.pacs.cohort import Pulled

__all__ = ["IMAGES", "Cohort", "finish", "pull"]

IMAGES = "images"
"""Where the de-identified files lie below the dataset folder."""


@dataclass(frozen=True)
class Cohort:
    """What was asked for; ``per_minute`` limits the studies that the archive is asked for in a minute."""

    remote: str
    query: list[str]
    limit: int
    per_minute: float
    key: Path | None
    characteristics: bool


def pull(asked: Cohort, folder: Path, source: Path | None) -> tuple[Path, DeidReport]:
    """Pull a cohort into ``folder``/images and return that folder with the report; say what happened on stderr.

    What is not claimed to be clean goes to ``folder``-quarantine.

    Raises:
        UsageError: no query, an unknown remote, a refused key file, or a ``source`` beside the archive.
        PeerUnreachable: the archive does not answer, or nothing of the cohort could be fetched.
    """
    from wetread.cli.console import progress
    from wetread.cli.deid import opened_setup
    from wetread.cli.deid_report import write_report
    from wetread.cli.pacs import filters_of, remote_of
    from wetread.deid.batch import open_run, quarantine_of
    from wetread.deid.options import Options
    from wetread.pacs.cohort import Archive, find_cohort, pull_cohort

    if source is not None:
        raise UsageError(expected("a SOURCE or --pacs", "both", "leave one out"))
    remote, title = remote_of(asked.remote, None)
    archive = Archive(remote, title, asked.per_minute)
    images = folder / IMAGES
    options = Options(retain_patient_characteristics=asked.characteristics)
    setup = opened_setup(asked.key, (folder,), options)
    studies = find_cohort(archive, filters_of(asked.query), asked.limit)
    if not studies:
        raise UsageError(expected("studies that answer the query", "none", "try it with `wetread pacs find`"))
    folder.mkdir(parents=True, exist_ok=True)
    quarantine = quarantine_of(folder)
    with open_run(setup, images, quarantine=quarantine) as run:
        with progress("Pulling", "studies") as advance:
            pulled = pull_cohort(archive, studies, run, advance)
        report = run.report()
    write_report(report, images)
    _tell(pulled, report, quarantine)
    return images, report


def finish(report: DeidReport) -> None:
    """End with exit code 1 if files were quarantined."""
    if report.count("quarantined"):
        raise typer.Exit(1)


def _tell(pulled: Pulled, report: DeidReport, quarantine: Path) -> None:
    from wetread.cli.console import stderr, warn

    words = f"{pulled.done} studies pulled, {pulled.already} were there, {pulled.objects} objects came"
    stderr().print(words, markup=False)
    if held := report.count("quarantined"):
        warn(f"{held} objects are not claimed to be clean: {quarantine}")
    if pulled.failed:
        warn(f"{len(pulled.failed)} studies did not come; run the same command again to go on: {pulled.failed[0]}")
        if not (pulled.done or pulled.already):
            raise PeerUnreachable(expected("studies from the archive", "none of the cohort", "see the line above"))
