"""The entry point: which verbs there are, where each lives, and what every failure looks like.

Nothing but the standard library and the error tree is imported until a verb is typed, so
``wetread --help`` is instant. A verb is a typer app, or a function that becomes one.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wetread.errors import UsageError, WetreadError, expected

__all__ = ["VERBS", "Verb", "load_verb", "main", "overview", "run"]


@dataclass(frozen=True)
class Verb:
    """One line of the table: ``target`` is ``module:attribute``, ``help`` one line."""

    target: str
    help: str


VERBS: dict[str, Verb] = {
    "read": Verb("wetread.cli.read:command", "Read images: probability, decision, heat map, gate."),
    "dataset": Verb("wetread.cli.dataset:app", "Import images, check them, divide them by patient."),
    "train": Verb("wetread.cli.train:command", "Train a reader on a dataset."),
    "evaluate": Verb("wetread.cli.evaluate:command", "Measure a reader, every figure with its interval."),
    "compare": Verb("wetread.cli.compare:command", "Train and test several networks on one split."),
    "calibrate": Verb("wetread.cli.calibrate:command", "Fit probabilities and abstention to your own images."),
    "audit": Verb("wetread.cli.audit:command", "Ask whether a reader reads the disease or something else."),
    "segment": Verb("wetread.cli.segment:command", "Find organs: masks, measures, what is odd about them."),
    "explain": Verb("wetread.cli.explain:command", "Show where a reader looked."),
    "index": Verb("wetread.cli.index:app", "Keep past cases: build, add, search, delete, evaluate."),
    "similar": Verb("wetread.cli.similar:command", "Name past cases that look like a film."),
    "deid": Verb("wetread.cli.deid:app", "Remove what identifies patients from DICOM files."),
    "models": Verb("wetread.cli.models:app", "List, show, export and import readers."),
    "node": Verb("wetread.cli.node:app", "Receive DICOM studies, read them, send results back."),
    "pacs": Verb("wetread.cli.pacs:app", "Ask, fetch from and send to other DICOM systems."),
    "serve": Verb("wetread.cli.serve:command", "Serve the assistant to browsers and programs."),
    "worker": Verb("wetread.cli.worker:command", "Read what was uploaded to the service."),
    "db": Verb("wetread.cli.db:app", "Keep the service's database: back up, restore, verify."),
    "mcp": Verb("wetread.cli.mcp:command", "Offer the assistant's tools to other programs (MCP)."),
    "doctor": Verb("wetread.cli.doctor:command", "Check this installation and say how to mend it."),
    "demo": Verb("wetread.cli.demo:command", "All of it once, on synthetic studies, in a minute."),
}

_EXAMPLES = """\
Examples:
  wetread demo                          everything once, on synthetic studies
  wetread read film.dcm                 one image with the shipped reader
  wetread read folder/ --out reads/     a folder, with HTML reports
  wetread dataset import folder/        the first step to a reader of your own"""

_DISCLAIMER = "Research use only. Not a diagnosis."


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, or that of the error (:mod:`wetread.errors`).

    ``--debug`` anywhere before ``--`` shows the traceback of an error instead of its one line.
    """
    words, debug = _without_debug(arguments)
    try:
        code = _dispatch(words, debug)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        return _report(error, debug)
    if code == 130:
        _say("interrupted")
    return code


def overview() -> str:
    """The text of ``wetread --help``, made from the table of verbs."""
    lines = [f"  {name:10} {verb.help}" for name, verb in VERBS.items()]
    options = [
        "  --debug     Show the traceback of an error.",
        "  --version   Show the version.",
        "  -h, --help  Show this text, or after a verb that of the verb.",
    ]
    head = "Usage: wetread [--debug] VERB [ARGUMENTS]\n\nTrain, audit and run readers of medical images."
    return "\n".join([head, _DISCLAIMER, "", "Verbs:", *lines, "", "Options:", *options, "", _EXAMPLES])


def load_verb(name: str) -> Any:
    """Import a verb and return its command, a click command as typer makes it.

    Raises:
        UsageError: there is no such verb; the nearest is suggested.
    """
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        cure = f"did you mean '{near[0]}'?" if near else f"use one of {', '.join(VERBS)}"
        raise UsageError(expected("a verb of wetread", f"'{name}'", cure))
    import typer

    module, attribute = VERBS[name].target.split(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        app = typer.Typer()
        app.command(name=name)(found)
        found = app
    # Help as plain text: it is the same in a terminal, a log and the manual.
    found._add_completion = False
    found.rich_markup_mode = None
    return typer.main.get_command(found)


def _dispatch(words: list[str], debug: bool) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview() + "\n")
        return 0
    if words[0] == "--version":
        from wetread import __version__

        sys.stdout.write(f"wetread {__version__}\n")
        return 0
    command = load_verb(words[0])
    from wetread.cli.console import log_to_stderr

    log_to_stderr(debug=debug)
    result = command.main(
        words[1:],
        prog_name=f"wetread {words[0]}",
        standalone_mode=False,
        help_option_names=["-h", "--help"],
    )
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _report(error: Exception, debug: bool) -> int:
    """Show an error in one line on stderr, or with ``debug`` whole; return its exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, WetreadError):
        _say(f"error: {' '.join(str(error).split())}")
        return error.exit_code
    if (usage := _usage_message(error)) is not None:
        _say(usage)
        return 2
    # The text of an unexpected error may quote a header, and headers name patients.
    _say(f"error: unexpected {type(error).__name__}{'' if debug else '; run again with --debug to see where'}")
    return 1


def _usage_message(error: Exception) -> str | None:
    """The line for a mistake in the flags, which typer found; None for any other error."""
    import typer

    base = typer.BadParameter.__bases__[0]  # UsageError of click, which typer does not export
    if not isinstance(error, base):
        return None
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if context is None:
        return f"error: {message}"
    if not message or message == context.get_help():
        return str(context.get_help())
    return f"error: {message} See '{context.command_path} --help'."


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _abandon_stdout() -> None:
    """The reader of the pipe has gone (``| head``): keep the interpreter from flushing into it again."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
