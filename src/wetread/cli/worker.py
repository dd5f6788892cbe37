"""``wetread worker``: a process that reads what was uploaded; as many as there are cores to spare."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    root: Annotated[Path | None, typer.Option(help="Folder of the service [as the settings say].")] = None,
    database_url: Annotated[str | None, typer.Option(help="Database, as of `wetread serve`.", metavar="URL")] = None,
    once: Annotated[bool, typer.Option("--once", help="Do what is due, then stop.")] = False,
    owner: Annotated[str, typer.Option(help="Name in the table of jobs.", hidden=True)] = "",
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop with the parent.", hidden=True)] = False,
) -> None:
    """Read images that were uploaded to `wetread serve`, until stopped. A killed worker loses nothing.

    Example: wetread worker --database-url postgresql+psycopg://wetread@db/wetread
    """
    from wetread.service.context import open_service
    from wetread.service.server import stop_with_parent, yield_to_server
    from wetread.service.worker import Worker, work
    from wetread.settings import load_settings

    service = open_service(load_settings({"service.root": root, "service.database_url": database_url}))
    chosen = Worker(service, owner)
    if once:
        sys.stdout.write(f"{chosen.drain()} jobs\n")
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: chosen.stop.set())
    if with_parent:
        stop_with_parent(chosen.stop)
        yield_to_server()
    work(chosen)
