"""``wetread serve``: the web service on this machine, with its worker, and an address to open."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8000,
    root: Annotated[Path | None, typer.Option(help="Folder of the service [as the settings say].")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Database, e.g. postgresql+psycopg://… [SQLite in the root].", metavar="URL")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Reader of every upload [as the settings say].")] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Run a worker too; --no-worker where `wetread worker` runs.")
    ] = True,
    node: Annotated[
        bool | None,
        typer.Option("--node/--no-node", help="Also receive studies by DICOM into the worklist [service.node]."),
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate, PEM.", metavar="FILE")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.", metavar="FILE")] = None,
    insecure_bind: Annotated[
        bool, typer.Option("--insecure-bind", help="Let other machines reach it without TLS.")
    ] = False,
    language_model_url: Annotated[
        str,
        typer.Option(
            help="OpenAI-compatible service that may word answers anew [none].",
            metavar="URL",
            envvar="WETREAD_LANGUAGE_MODEL_URL",
        ),
    ] = "",
    language_model: Annotated[
        str, typer.Option(help="Name of the model there.", metavar="NAME", envvar="WETREAD_LANGUAGE_MODEL")
    ] = "",
    oidc_issuer: Annotated[
        str,
        typer.Option(help="OpenID Connect provider for log-ins [none].", metavar="URL", envvar="WETREAD_OIDC_ISSUER"),
    ] = "",
    oidc_client: Annotated[
        str, typer.Option(help="Client of this service there.", metavar="ID", envvar="WETREAD_OIDC_CLIENT")
    ] = "",
    oidc_redirect: Annotated[
        str,
        typer.Option(
            help="Address it sends people back to: https://HOST/login/openid/back [as the browser asked].",
            metavar="URL",
            envvar="WETREAD_OIDC_REDIRECT",
        ),
    ] = "",
) -> None:
    """Serve the assistant: upload, worklist, reads with heat maps, feedback. Prints an address that logs in once.

    Example: wetread serve --port 8000
    """
    from wetread.service.context import open_service
    from wetread.service.language import language_model as chosen_language
    from wetread.service.openid import openid_connect
    from wetread.service.server import Address, EmbeddedWorker, check_address, login_address, run_server
    from wetread.settings import load_settings

    address = Address(host, port, tls_certificate, tls_key)
    check_address(address, insecure_bind)
    flags = {
        "service.root": root, "service.database_url": database_url, "service.reader": reader, "service.node": node
    }  # fmt: skip
    settings = load_settings(flags)
    language = chosen_language(language_model_url, language_model)
    openid = openid_connect(oidc_issuer, oidc_client, oidc_redirect)
    service = open_service(settings, secure=address.secure, language=language, openid=openid)
    service.catalog.reader(settings.service.reader)  # a wrong name is told now, not at the first upload
    with ExitStack() as stack:
        stack.callback(service.close)
        if worker:
            stack.enter_context(EmbeddedWorker(service, settings))
        if settings.service.node:
            from wetread.service.receiver import Receiver

            service = replace(service, receiver=stack.enter_context(Receiver(service.catalog, settings)))
        sys.stdout.write(f"{login_address(service, address)}\n")
        sys.stdout.write("Open it in a browser of this machine: it logs in once. Stop with Ctrl-C.\n")
        sys.stdout.flush()
        run_server(service, address)
