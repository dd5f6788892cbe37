"""``wetread pacs``: ask, fetch from and send to other DICOM systems."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.errors import UsageError, WetreadError, expected

if TYPE_CHECKING:
    from wetread.settings import NodeRemote

__all__ = ["app", "filters_of", "remote_of"]

app = typer.Typer(name="pacs", no_args_is_help=True, help="Ask, fetch from and send to other DICOM systems.")

_REMOTE = typer.Argument(help="Name in [node.remotes], TITLE@host:port, or a DICOMweb URL.", metavar="REMOTE")
_TITLE = typer.Option("--title", help="AE title that we call ourselves [node.title].")
_MOST_SHOWN = 5


@app.command("echo")
def echo_command(remote: Annotated[str, _REMOTE], title: Annotated[str | None, _TITLE] = None) -> None:
    """Ask whether a system answers (C-ECHO, or a query of one study over DICOMweb).

    Example: wetread pacs echo ORTHANC@127.0.0.1:4242
    """
    from wetread.cli.console import stdout
    from wetread.pacs import client, web

    found, own = remote_of(remote, title)
    if found.web:
        web.find(found.web, {}, limit=1, proof=web.authorization(found.authorization))
        stdout().print(f"{remote} answers", markup=False)
        return
    stdout().print(f"{remote} answers in {client.echo(found, own):.0f} ms", markup=False)


@app.command("find")
def find_command(
    remote: Annotated[str, _REMOTE],
    query: Annotated[
        list[str] | None, typer.Option("--query", help="Keyword=value, DICOM wildcards allowed; repeat.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Studies at most.", min=1)] = 100,
    title: Annotated[str | None, _TITLE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """Find studies (C-FIND or QIDO-RS).

    Example: wetread pacs find hospital --query ModalitiesInStudy=CR --query StudyDate=20260101-
    """
    from wetread.cli.console import print_json, stdout
    from wetread.pacs import client, web

    found, own = remote_of(remote, title)
    filters = filters_of(query or [])
    if found.web:
        rows = web.find(found.web, filters, limit, proof=web.authorization(found.authorization))
    else:
        rows = client.find(found, own, filters, limit)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        cells = (row.get(key, "") for key in ("StudyDate", "ModalitiesInStudy", "StudyDescription", "StudyInstanceUID"))
        stdout().print("  ".join(cells), markup=False, soft_wrap=True)
    stdout().print(f"{len(rows)} studies", style="dim", markup=False)


@app.command("get")
def get_command(
    remote: Annotated[str, _REMOTE],
    studies: Annotated[list[str], typer.Argument(help="Study Instance UIDs.", metavar="STUDY…")],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    title: Annotated[str | None, _TITLE] = None,
) -> None:
    """Fetch studies (C-GET or WADO-RS) as they are stored; file names are hashes.

    Example: wetread pacs get hospital 1.2.3.4 --out films
    """
    from wetread.cli.console import stdout
    from wetread.pacs import client, web

    found, own = remote_of(remote, title)
    total = 0
    for study in studies:
        if found.web:
            total += len(web.get_study(found.web, study, out, proof=web.authorization(found.authorization)))
        else:
            total += len(client.get_study(found, own, study, out))
    if not total:
        raise WetreadError(expected("at least one object", "none", "check the study UIDs with `wetread pacs find`"))
    stdout().print(f"{total} objects in {out}", markup=False)


@app.command("move")
def move_command(
    remote: Annotated[str, _REMOTE],
    studies: Annotated[list[str], typer.Argument(help="Study Instance UIDs.", metavar="STUDY…")],
    to: Annotated[str | None, typer.Option(help="AE title of the destination, as the remote knows it [ours].")] = None,
    title: Annotated[str | None, _TITLE] = None,
) -> None:
    """Have a system send studies to a node (C-MOVE); exit code 1 if an object did not arrive.

    Example: wetread pacs move hospital 1.2.3.4 --to WETREAD
    """
    from wetread.cli.console import stdout
    from wetread.pacs import client

    found, own = remote_of(remote, title)
    if not found.port:
        raise UsageError(expected("a remote with a port for C-MOVE", f"'{remote}'", "use `wetread pacs get`"))
    counts = [client.move_study(found, own, study, to or own) for study in studies]
    sent, failed = (sum(one) for one in zip(*counts, strict=True))
    stdout().print(f"{sent} objects sent to {to or own}, {failed} failed", markup=False)
    if failed or not sent:
        raise typer.Exit(1)


@app.command("send")
def send_command(
    remote: Annotated[str, _REMOTE],
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders.", metavar="PATH…")],
    title: Annotated[str | None, _TITLE] = None,
) -> None:
    """Send files (C-STORE or STOW-RS) without re-encoding them; exit code 1 if one was not taken.

    Example: wetread pacs send hospital results/
    """
    from wetread.cli.console import stderr, stdout
    from wetread.pacs import client, web

    found, own = remote_of(remote, title)
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [file for file in files if file.is_file()]
    if not files:
        raise UsageError(expected("files to send", "none", "name DICOM files or a folder of them"))
    if found.web:
        failed = web.send_files(found.web, files, proof=web.authorization(found.authorization))
    else:
        failed = client.send_files(found, own, files)
    stdout().print(f"{len(files) - len(failed)} of {len(files)} sent to {remote}", markup=False)
    for path, why in list(failed.items())[:_MOST_SHOWN]:
        stderr().print(f"not sent: {path}: {why}", style="red", markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def remote_of(text: str, title: str | None) -> tuple[NodeRemote, str]:
    """The remote that ``text`` names or spells out, and our own title.

    Raises:
        UsageError: neither a name in the settings, nor TITLE@host:port, nor a URL.
    """
    from wetread.settings import NodeRemote, load_settings

    settings = load_settings().node
    own = title or settings.title
    if text in settings.remotes:
        return settings.remotes[text], own
    if text.startswith(("http://", "https://")):
        from wetread.pacs.web import require_url

        return NodeRemote(web=require_url(text)), own
    spelled = re.fullmatch(r"([^@]{1,16})@([^@:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", text)
    if spelled is None or int(spelled[3]) > 65535:
        known = ", ".join(settings.remotes) or "none is set"
        raise UsageError(expected("a remote", f"'{text}'", f"use TITLE@host:port, a URL, or a name ({known})"))
    return NodeRemote(title=spelled[1], host=spelled[2].strip("[]"), port=int(spelled[3])), own


def filters_of(query: list[str]) -> dict[str, str]:
    """Keyword -> value of ``Keyword=value`` texts.

    Raises:
        UsageError: a text without a keyword or without a value.
    """
    filters: dict[str, str] = {}
    for one in query:
        keyword, found, value = one.partition("=")
        if not found or not keyword:
            raise UsageError(expected("--query Keyword=value", f"'{one}'", "write for example StudyDate=20260101-"))
        filters[keyword] = value
    return filters
