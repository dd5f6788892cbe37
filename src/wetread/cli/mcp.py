"""``wetread mcp``: the tools of the assistant for other programs, over stdin and stdout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["TOKEN_VARIABLE", "command"]

TOKEN_VARIABLE = "WETREAD_TOKEN"  # noqa: S105  the name of the variable


def command(
    root: Annotated[Path | None, typer.Option(help="Folder of the service [as the settings say].")] = None,
    database_url: Annotated[str | None, typer.Option(help="Database, as of `wetread serve`.", metavar="URL")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with a token of the service [{TOKEN_VARIABLE}].", metavar="FILE")
    ] = None,
) -> None:
    """Offer the tools of the assistant to a program that speaks MCP, over stdin and stdout; no patient data leaves.

    Example: wetread mcp --token-file token.txt
    """
    from wetread.errors import UsageError, expected
    from wetread.service.context import open_service
    from wetread.service.mcp_server import build_server
    from wetread.service.tools import Tools
    from wetread.settings import load_settings

    try:
        token = os.environ.get(TOKEN_VARIABLE, "") if token_file is None else token_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(expected("a file with a token", "one that cannot be read", "check --token-file")) from None
    if not token.strip():
        cure = f"make one with POST /api/v1/tokens and set {TOKEN_VARIABLE} or --token-file"
        raise UsageError(expected("a token of the service", "none", cure))
    service = open_service(load_settings({"service.root": root, "service.database_url": database_url}))
    try:
        build_server(Tools(service, token.strip())).run("stdio")
    finally:
        service.close()
