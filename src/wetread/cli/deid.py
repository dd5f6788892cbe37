"""``wetread deid``: remove what identifies patients from DICOM files, and undo it for who may."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from wetread.errors import InputRefused, UsageError, expected

if TYPE_CHECKING:
    from wetread.deid.options import Options
    from wetread.deid.process import Setup
    from wetread.deid.records import DeidReport

__all__ = ["KEY_HELP", "app", "default_key", "opened_setup", "print_report"]


class _RunByDefault(TyperGroup):
    """``wetread deid films --out clean`` means ``wetread deid run films --out clean``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before words that begin with a path."""
        named = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().parse_args(ctx, ["run", *args] if named else args)


app = typer.Typer(
    name="deid",
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Remove what identifies patients from DICOM files (PS3.15 Basic Profile), and undo it with the key.",
)

KEY_HELP = "Key file; made on the first run [deid.key in the user's configuration folder]."
_MOST_SHOWN = 5
_Key = Annotated[Path | None, typer.Option(help=KEY_HELP)]


@app.command("run", epilog="Example: wetread deid run films/ --out deidentified")
def run_command(
    sources: Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", metavar="PATH…")],
    out: Annotated[Path, typer.Option(help="Folder for the result; an earlier one is gone on with.")],
    key: _Key = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Folder for what is not claimed to be clean [OUT-quarantine].")
    ] = None,
    retain_dates: Annotated[
        bool, typer.Option(help="Keep dates, moved by a number of days for each patient; else remove them.")
    ] = True,
    retain_private: Annotated[bool, typer.Option(help="Keep the private numbers that PS3.15 E.3.10 lists.")] = True,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep names and numbers of devices.")] = False,
    retain_characteristics: Annotated[
        bool, typer.Option("--retain-patient-characteristics", help="Keep sex, age (up to 90), size and weight.")
    ] = False,
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Keep UIDs: others can look them up.")] = False,
    clean_descriptors: Annotated[
        bool, typer.Option("--clean-descriptors", help="Keep descriptions in which nothing identifying is found.")
    ] = False,
    reversible: Annotated[
        bool, typer.Option("--reversible", help="Seal the originals in OUT-originals.sealed, for the key alone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report on stdout.")] = False,
) -> None:
    """De-identify files; exit code 1 if some were quarantined, 3 if there was nothing to de-identify.

    Headers follow PS3.15 E.1; text in pixels is found by OCR and blacked out; every written file is searched again.
    """
    from wetread.cli.console import progress
    from wetread.deid.batch import files_below, open_run, quarantine_of
    from wetread.deid.options import Options
    from wetread.deid.originals import sealed_of

    options = Options(
        retain_dates=retain_dates,
        retain_private=retain_private,
        retain_device=retain_device,
        retain_patient_characteristics=retain_characteristics,
        retain_uids=retain_uids,
        clean_descriptors=clean_descriptors,
    )
    paths = files_below(sources)
    _require_apart(sources, out)
    folders = tuple(source for source in sources if source.is_dir())
    setup = opened_setup(key, (out, *folders), options)
    sealed = sealed_of(out) if reversible else None
    with open_run(setup, out, quarantine=quarantine, dry_run=dry_run, sealed=sealed) as run:
        with progress("De-identifying", "files") as advance:
            for number, path in enumerate(paths, 1):
                run.take(path)
                advance(number, len(paths))
        report = run.report()
    print_report(report, out, quarantine or quarantine_of(out), as_json)
    if report.count("quarantined"):
        raise typer.Exit(1)
    if report.count("skipped") == len(report.files):
        got = f"{_many(len(report.files), 'file')} without one"
        raise InputRefused(expected("DICOM objects", got, "name files or folders that hold some"))


@app.command("restore", epilog="Example: wetread deid restore deidentified/ --out originals")
def restore_command(
    sources: Annotated[list[Path], typer.Argument(help="De-identified files or folders.", metavar="PATH…")],
    out: Annotated[Path, typer.Option(help="New folder for the originals.")],
    key: _Key = None,
    originals: Annotated[
        Path | None, typer.Option(help="The sealed file [FOLDER-originals.sealed beside the first folder].")
    ] = None,
) -> None:
    """Undo a run that was made with --reversible; headers and blacked out pixels come back.

    Needs the key file of that run. File names stay those of the de-identified files.
    """
    from wetread.cli.console import stdout
    from wetread.deid.batch import files_below
    from wetread.deid.key import load_key
    from wetread.deid.originals import open_originals, restore, sealed_of
    from wetread.imaging.header import quiet
    from wetread.provenance import atomic_folder

    sealed = originals or sealed_of(sources[0])
    opened = open_originals(sealed, load_key(key or default_key(), tuple(s for s in sources if s.is_dir())))
    paths = [path for path in files_below(sources) if path.suffix == ".dcm"]
    if not paths:
        raise InputRefused(expected("de-identified files", "none", "name the result of `wetread deid run`"))
    with atomic_folder(out) as folder:
        for path in paths:
            with quiet():
                restore(path, opened).save_as(folder / path.name, enforce_file_format=True)
    out.chmod(0o700)
    stdout().print(f"{len(paths)} originals in {out}: they identify patients", markup=False)


def default_key() -> Path:
    """The key file of this user."""
    from wetread.settings import user_file

    return user_file().parent / "deid.key"


def opened_setup(key: Path | None, away_from: tuple[Path, ...], options: Options) -> Setup:
    """Key and settings of a run, checked before any file is read; a new key is announced on stderr.

    Raises:
        UsageError: the key file is refused, or a package of the extra ``deid`` is missing.
    """
    from wetread.cli.console import warn
    from wetread.deid.key import open_key
    from wetread.deid.process import Setup
    from wetread.deid.profile import basic_profile
    from wetread.deid.text import require_engine
    from wetread.settings import load_settings

    basic_profile()
    require_engine()
    path = key or default_key()
    opened, new = open_key(path, away_from)
    if new:
        warn(
            f"A new key was written to {path}. Keep it secret and keep a copy: whoever has it can find out which "
            "pseudonym is which patient, and without it later runs give other pseudonyms."
        )
    return Setup(opened, options, load_settings().imaging.budget_bytes)


def print_report(report: DeidReport, out: Path, quarantine: Path, as_json: bool) -> None:
    """Write the report into the result, unless nothing was to be written, and say what happened."""
    from wetread.cli.console import print_json, stderr, stdout
    from wetread.cli.deid_report import write_report

    if not report.dry_run:
        write_report(report, out)
    if as_json:
        print_json(report)
        return
    console = stdout()
    blacked = sum(len(file.regions) for file in report.files)
    verb = "would be written" if report.dry_run else "written"
    console.print(f"{_many(report.count('written'), 'file')} {verb} to {out}", style="bold", markup=False)
    console.print(f"  {_many(blacked, 'text')} blacked out, key {report.key}", markup=False)
    if skipped := report.count("skipped"):
        console.print(f"  {_many(skipped, 'file')} skipped: no DICOM object to de-identify", markup=False)
    bad = [file for file in report.files if file.status == "quarantined"]
    for file in bad[:_MOST_SHOWN]:
        stderr().print(f"quarantined: file {file.number}: {file.reason}", style="red", markup=False, soft_wrap=True)
    if bad:
        where = "" if report.dry_run else f", listed in {quarantine}"
        words = f"not claimed to be clean: {_many(len(bad), 'file')}{where}"
        stderr().print(words, style="red", markup=False, soft_wrap=True)


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _require_apart(sources: list[Path], out: Path) -> None:
    for source in sources:
        if source.is_dir() and (
            out.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(out.resolve())
        ):
            cure = "name a folder apart from it"
            raise UsageError(expected("a result outside the source", f"{out} and {source}", cure))
