"""Writes the reference pages that the code already contains: verbs and flags, settings, exit codes.

``python docs/generate.py`` writes them; ``tests/cli/test_docs.py`` fails when one is not current.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wetread import errors
from wetread.audit.thresholds import Thresholds
from wetread.cli.main import VERBS, load_verb, overview
from wetread.settings import FILE_NAME, load_settings, settings_table

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 100
_HEAD = "<!-- Written by docs/generate.py: change the code and run it again. -->\n"


def pages() -> dict[str, str]:
    """File name -> text of each generated page."""
    return {"api.md": web_api_page(), "audit.md": audit_page(), "cli.md": cli_page(), "settings.md": settings_page()}


def web_api_page() -> str:
    """The routes of the service, as a service of its own in a scratch folder offers them."""
    from wetread.service.app import build_app
    from wetread.service.context import open_service
    from wetread.service.reference import api_page

    with tempfile.TemporaryDirectory() as folder:
        service = open_service(load_settings({"service.root": Path(folder) / "service"}))
        page = api_page(build_app(service))
        service.close()
    return page


def audit_page() -> str:
    """The limits of the audit, from the record that holds them."""
    rows = [
        f"| `{name}` | {field.default:g} | {field.description} |" for name, field in Thresholds.model_fields.items()
    ]
    table = "\n".join(["| limit | default | what it decides |", "|---|---|---|", *rows])
    text = (
        "Most limits are conventions: they are printed beside every answer that they decide, and set with "
        "`--threshold NAME=VALUE`. T1 has none: one patient in two splits is one too many."
    )
    return "\n\n".join(["# Limits of the audit", _HEAD, text, table]) + "\n"


def cli_page() -> str:
    parts = [
        "# Command line",
        _HEAD,
        f"```text\n{overview()}\n```",
        "Results go to stdout, progress and warnings to stderr; `--json` makes the result one for machines.",
        "## Exit codes",
        exit_codes(),
    ]
    for verb in VERBS:
        for name, text in helps(f"wetread {verb}", load_verb(verb)):
            level = "##" if name.count(" ") == 1 else "###"
            parts.append(f"{level} `{name}`\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def helps(name: str, command: Any) -> Iterator[tuple[str, str]]:
    """The help of a command and of all below it, as ``--help`` prints it at :data:`WIDTH` columns."""
    context = command.context_class(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
    for sub, child in getattr(command, "commands", {}).items():
        yield from helps(f"{name} {sub}", child)


def exit_codes() -> str:
    """A table from the exception tree."""
    rows = {
        0: "all is well",
        2: "flags or settings that make no sense",
        5: "an audit that failed, if asked to be strict",
    }
    for name in errors.__all__:
        found = getattr(errors, name)
        if not (isinstance(found, type) and issubclass(found, errors.WetreadError)):
            continue
        if "exit_code" in vars(found) and found.exit_code not in rows:
            line = (found.__doc__ or "").split("\n")[0].rstrip(".")
            rows[found.exit_code] = line[:1].lower() + line[1:]
    rows[1] = "a run failed, or some of several items did: a failures file says which"
    rows[3] = "input that was refused; nothing half-written is left"
    rows[130] = "interrupted; a training run has saved its checkpoint"
    lines = [f"| {code} | {rows[code]} |" for code in sorted(rows)]
    return "\n".join(["| code | meaning |", "|---|---|", *lines])


def settings_page() -> str:
    rows = [f"| `{s.key}` | {s.default} | {s.unit} | {s.help} | `{s.environment}` |" for s in settings_table()]
    table = "\n".join(["| setting | default | unit | what it is | environment |", "|---|---|---|---|---|", *rows])
    example = f"```toml\n# {FILE_NAME}\n[runtime]\nthreads = 4\n```"
    text = (
        f"A flag wins over the environment, the environment over `{FILE_NAME}` in the current folder, that over "
        f"`{FILE_NAME}` in the user's configuration folder (on Linux `~/.config/wetread/`), and that over the default. "
        "A key that is not in this table is an error that names the nearest one."
    )
    return "\n\n".join(["# Settings", _HEAD, text, example, table]) + "\n"


def main() -> None:
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
