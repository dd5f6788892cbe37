"""``wetread db``: the database of the service: bring up to date, back up, restore, check the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.cli.console import print_json, stdout, warn

if TYPE_CHECKING:
    from wetread.service.context import Service

__all__ = ["app"]

app = typer.Typer(name="db", no_args_is_help=True, help="Keep the database of the service.")

_Root = Annotated[Path | None, typer.Option("--root", help="Folder of the service [as the settings say].")]
_Url = Annotated[str | None, typer.Option("--database-url", help="Database, as of `wetread serve`.", metavar="URL")]
_Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")]


@app.command()
def migrate(root: _Root = None, database_url: _Url = None) -> None:
    """Bring the tables up to date; `serve` and `worker` do it at each start."""
    from wetread.service.database import revision

    service = _open(root, database_url)
    stdout().print(f"revision {revision(service.database)}", markup=False)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="TAR file to write.", metavar="FILE.tar")],
    root: _Root = None,
    database_url: _Url = None,
    as_json: _Json = False,
) -> None:
    """Write all tables and files into one TAR file, while the service may run. Exit code 1 if files are damaged.

    Example: wetread db backup wetread.tar
    """
    from wetread.service.backup import back_up

    service = _open(root, database_url)
    found = back_up(service.database, service.blobs, file)
    if as_json:
        print_json({"rows": found.rows, "files": found.files, "head": found.head, "missing": list(found.missing)})
    else:
        stdout().print(f"{found.rows} rows, {found.files} files, audit log up to {found.head}: {file}", markup=False)
    if found.missing:
        warn(f"{len(found.missing)} stored files are missing or damaged and are not in the backup")
        raise typer.Exit(1)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="TAR file of `wetread db backup`.", metavar="FILE.tar")],
    root: _Root = None,
    database_url: _Url = None,
    as_json: _Json = False,
) -> None:
    """Take a backup into an empty installation, of either kind of database."""
    from wetread.service.backup import restore as take_in

    service = _open(root, database_url)
    found = take_in(service.database, service.blobs, file)
    if as_json:
        return print_json({"rows": found.rows, "files": found.files, "head": found.head})
    stdout().print(f"{found.rows} rows and {found.files} files restored; the audit log holds", markup=False)
    return None


@app.command("verify-log")
def verify_log(
    head: Annotated[str, typer.Option(help="Head that was noted earlier; it must be in the log.")] = "",
    root: _Root = None,
    database_url: _Url = None,
    as_json: _Json = False,
) -> None:
    """Check that no line of the audit log was changed or removed, and print its head. Exit code 1 if one was.

    Note the head elsewhere: lines cut off at the end are found only by comparing with it.
    """
    from wetread.service import audit_log

    service = _open(root, database_url)
    with service.database.read() as session:
        found = audit_log.verify(session, head)
    if as_json:
        print_json({"entries": found.entries, "head": found.head, "broken": found.broken, "reason": found.reason})
    elif found.broken is None:
        stdout().print(f"{found.entries} lines hold, head {found.head}", markup=False)
    if found.broken is not None:
        warn(f"line {found.broken}: {found.reason}")
        raise typer.Exit(1)


def _open(root: Path | None, database_url: str | None) -> Service:
    from wetread.service.context import open_service
    from wetread.settings import load_settings

    return open_service(load_settings({"service.root": root, "service.database_url": database_url}))
