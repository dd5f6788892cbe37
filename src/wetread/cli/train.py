"""``wetread train``: its flags are the fields of :class:`TrainingConfig`, so the two cannot drift apart."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wetread.cli.console import print_json, staged_progress, stdout
from wetread.errors import UsageError, expected
from wetread.training.config import LoopSettings, SegmentConfig, TrainingConfig, config_of, load_recipe
from wetread.training.study_config import StudyConfig
from wetread.types import Estimate

if TYPE_CHECKING:
    from wetread.datasets.manifest import Manifest
    from wetread.training.fit import TrainingResult

__all__ = ["command"]

Kind = type[TrainingConfig] | type[SegmentConfig] | type[StudyConfig]


def _run(dataset: Path, recipe: Path | None, out: Path | None, resume: bool, as_json: bool, **flags: Any) -> None:
    from wetread.datasets.manifest import load_manifest
    from wetread.settings import load_settings

    settings = load_settings()
    kind = _kind(flags.pop("task"), flags["level"] or _level_of(recipe))
    given = {key: value for key, value in flags.items() if value is not None and value != []}
    if kind is not StudyConfig:
        given.pop("level", None)
    _refuse_foreign(kind, given)
    config = config_of(kind, (load_recipe(recipe, kind) if recipe else {}) | given)
    if settings.runtime.threads and not config.threads:
        config = config.model_copy(update={"threads": settings.runtime.threads})
    folder = out or settings.paths.runs / "train" / config.run_name
    if resume:
        _refuse_other_settings(folder, given, kind)
    manifest = load_manifest(dataset)
    if isinstance(config, SegmentConfig):
        return _segment(manifest, config, folder, resume, as_json)
    return _classify(manifest, config, folder, resume, as_json)


def _classify(manifest: Manifest, config: LoopSettings, folder: Path, resume: bool, as_json: bool) -> None:
    from wetread.cli.train_report import write_report
    from wetread.settings import load_settings

    paths = load_settings().paths
    with staged_progress() as advance:
        if isinstance(config, StudyConfig):
            from wetread.training.study import train_study

            result = train_study(manifest, config, folder, cache=paths.cache, resume=resume, progress=advance)
        else:
            from wetread.training.fit import train

            assert isinstance(config, TrainingConfig)  # noqa: S101  there are three kinds
            result = train(
                manifest, config, folder, cache=paths.cache, resume=resume, progress=advance, shelves=[paths.readers]
            )
    page = write_report(result)
    if as_json:
        return print_json(_facts(result) | {"report": str(page)})
    return _print(result, page)


def _segment(manifest: Manifest, config: SegmentConfig, folder: Path, resume: bool, as_json: bool) -> None:
    from wetread.cli.segment_report import images_sentence, print_overlaps, write_segment_report
    from wetread.training.segment import train_segmenter

    with staged_progress() as advance:
        result = train_segmenter(manifest, config, folder, resume=resume, progress=advance)
    page = write_segment_report(result, manifest)
    card = result.card
    if as_json:
        facts = {
            "run": str(result.run_folder),
            "segmenter": str(result.reader_folder),
            "name": card.name,
            "sha256": card.sha256,
            "metrics": [row.model_dump(mode="json") for row in card.metrics],
            "images": result.images.model_dump(),
            "seconds": result.seconds,
            "report": str(page),
        }
        return print_json(facts)
    print_overlaps(card.metrics)
    console = stdout()
    console.print(images_sentence(result.images), markup=False)
    console.print(f"Segmenter: {result.reader_folder}", markup=False)
    console.print(f"Report: {page}", markup=False)
    return console.print(f"Next: wetread segment YOUR_IMAGES --segmenter {result.reader_folder}", markup=False)


def _level_of(recipe: Path | None) -> str:
    """What a recipe says is judged as one: it must be known before the recipe's settings can be checked."""
    if recipe is None:
        return "image"
    try:
        return str(tomllib.loads(recipe.read_text(encoding="utf-8")).get("level", "image"))
    except (OSError, ValueError):
        return "image"  # reading the recipe says what is wrong


def _kind(task: str, level: str) -> Kind:
    kinds: dict[str, Kind] = {"classify": TrainingConfig, "segment": SegmentConfig}
    if task not in kinds:
        raise UsageError(expected("a task among classify, segment", repr(task), "set --task to one"))
    if level not in ("image", "study", "patient"):
        raise UsageError(expected("a level among image, study, patient", repr(level), "set --level to one"))
    if level == "image":
        return kinds[task]
    if task == "segment":
        raise UsageError(expected("images for --task segment", f"--level {level}", "leave --level out"))
    return StudyConfig


_ASKED: dict[Kind, str] = {
    TrainingConfig: "--task classify",
    SegmentConfig: "--task segment",
    StudyConfig: "--level study",
}


def _refuse_foreign(kind: Kind, given: dict[str, Any]) -> None:
    """A flag of another kind of training must not be dropped in silence."""
    for key in given:
        if key not in kind.model_fields:
            other = next(name for name in _ASKED if key in name.model_fields)
            flag = f"--{key.replace('_', '-')}"
            raise UsageError(
                expected(f"flags of this task, which {flag} is not", flag, f"leave it out, or {_ASKED[other]}")
            )


def _refuse_other_settings(folder: Path, given: dict[str, Any], kind: Kind) -> None:
    """A resumed run keeps its own settings: a flag that says otherwise must not be dropped in silence."""
    stored = folder / "config.toml"
    if not stored.is_file():
        return  # training says that there is nothing to resume
    settings = load_recipe(stored, kind)
    own = config_of(kind, settings)
    for key in given:
        if getattr(config_of(kind, settings | {key: given[key]}), key) != getattr(own, key):
            flag = f"--{key.replace('_', '-')}"
            raise UsageError(
                expected("the settings of the run", f"another {key}", f"leave {flag} out or start a new run")
            )


def _facts(result: TrainingResult) -> dict[str, Any]:
    card = result.card
    return {
        "run": str(result.run_folder),
        "reader": str(result.reader_folder),
        "name": card.name,
        "sha256": card.sha256,
        "temperature": card.temperature,
        "metrics": [row.model_dump(mode="json") for row in card.metrics],
        "operating_points": [point.model_dump(mode="json") for point in card.operating_points],
        "seconds": result.seconds,
    }


def _print(result: TrainingResult, page: Path) -> None:
    from rich.table import Table

    console = stdout()
    for row in result.card.metrics:
        console.print(f"{row.name} ({row.split}): {_text(row.estimate)}", style="bold", markup=False)
    table = Table("operating point", "label", "threshold", "sensitivity", "specificity")
    for point in result.card.operating_points:
        table.add_row(
            point.name, point.label, f"{point.threshold:.4f}", _text(point.sensitivity), _text(point.specificity)
        )
    console.print(table)
    console.print(f"Reader: {result.reader_folder}", markup=False)
    console.print(f"Report: {page}", markup=False)
    console.print(f"Next: wetread read YOUR_IMAGES --reader {result.reader_folder}", markup=False)


def _text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (n={estimate.n})"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f}, n={estimate.n})"


def _flag(name: str, annotation: Any, description: str, default: object) -> inspect.Parameter:
    """One option; absent means that the recipe or the default holds."""
    shown = "" if default in (None, (), "") else f"  [default: {_plain(default)}]"
    is_list = "tuple" in str(annotation)
    kind: Any = list[str] if is_list else annotation
    option = typer.Option(help=f"{description[0].upper()}{description[1:]}.{shown}", show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _signature() -> inspect.Signature:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fixed: list[tuple[str, Any, Any]] = [
        ("dataset", Annotated[Path, typer.Argument(help="Folder, .parquet or .csv of a data set.")], ...),
        ("task", Annotated[str, typer.Option(help="classify images, or segment organs.")], "classify"),
        (
            "level",
            Annotated[
                str | None, typer.Option(help="image, study or patient: what is judged as one.  [default: image]")
            ],
            None,
        ),
        ("recipe", Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")], None),
        ("out", Annotated[Path | None, typer.Option(help="Run folder; default runs/train/NAME.")], None),
        ("resume", Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")], False),
        ("as_json", Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")], False),
    ]
    parameters = [
        inspect.Parameter(name, positional, annotation=kind)
        if default is ...
        else inspect.Parameter(name, positional, default=default, annotation=kind)
        for name, kind, default in fixed
    ]
    fields = SegmentConfig.model_fields | StudyConfig.model_fields | TrainingConfig.model_fields
    order = [*TrainingConfig.model_fields, *SegmentConfig.model_fields, *StudyConfig.model_fields]
    for name in dict.fromkeys(name for name in order if name != "level"):
        field = fields[name]
        other = SegmentConfig.model_fields.get(name) or StudyConfig.model_fields.get(name) or field
        # Where the two tasks take different values, the task's own table says which.
        annotation = field.annotation if field.annotation == other.annotation else str
        parameters.append(_flag(name, annotation, field.description or name, field.default))
    return inspect.Signature(parameters)


def command(**values: Any) -> None:
    """Train a reader on a data set with a patient-grouped split; the test split stays closed.

    Writes a run folder (settings, logs, checkpoints, predictions, report) with the reader in it.

    Defaults are those of --task classify; for --task segment see the page on training a segmenter, for --level study
    the one on reading a study.

    Example: wetread train datasets/kermany --mode finetune --epochs 8 --seed 1
    """
    _run(**values)


command.__signature__ = _signature()  # type: ignore[attr-defined]
command.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()}
