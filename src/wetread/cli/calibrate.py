"""``wetread calibrate``: temperature, thresholds and prediction sets of a reader, fitted to somebody's own images.

The weights stay. What is printed as *after* was fitted without the patients that it is measured on (five folds),
so that it does not flatter; what is written was fitted on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.errors import DatasetRefused, SplitRefused, StatisticRefused, UsageError, expected
from wetread.evaluation.calibration import EceVerdict
from wetread.evaluation.conformal import SetFigures
from wetread.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wetread.cli.console import Staged
    from wetread.datasets.manifest import Manifest
    from wetread.evaluation.conformal import Question
    from wetread.models.card import ConformalSpec, ReaderCard
    from wetread.models.predict import Reader
    from wetread.training.finish import Judged

    Floats = NDArray[np.float64]

__all__ = ["Calibration", "CalibrationFigures", "command"]

FOLDS = 5
_SOFT = 32.0
"""A temperature at which no probability saturates, so that logits come back from probabilities exactly."""
_TEST = "test"
_ALL = "all classes"


@dataclass(frozen=True)
class _Answers:
    """Calibrated probabilities (N, outputs) and, for each question, sets (N, C) or None without quantiles."""

    probabilities: Floats
    sets: list[NDArray[np.bool_] | None] | None
    temperature: float | None


class CalibrationFigures(Record):
    """How honest probabilities are on these images; ``temperature`` None where it differs by fold.

    ``nll``: negative log likelihood in nats per known label. ``ece`` by label, None where ``notes`` say why.
    ``sets`` by label, ``all classes`` for exclusive ones; None without quantiles.
    """

    temperature: float | None
    nll: float
    ece: dict[str, EceVerdict | None]
    sets: dict[str, SetFigures | None]
    notes: tuple[str, ...] = ()


class Calibration(Record):
    """What was fitted and what it changed. ``gated``: images left out because the reader refuses them."""

    reader: str
    reader_sha256: str
    data: str
    split: str
    images: int
    patients: int
    gated: int
    alpha: float
    seed: int
    temperature: float
    before: CalibrationFigures
    after: CalibrationFigures
    out: str


def command(
    reader: Annotated[str, typer.Argument(help="Name of a reader, its folder, or a run folder.")],
    data: Annotated[Path, typer.Option(help="Dataset with images of your own.")],
    split: Annotated[str, typer.Option(help="Split that it is fitted on; never test.")] = "val",
    alpha: Annotated[float, typer.Option(help="Error rate of the prediction sets, 0 to 1.")] = 0.1,
    out: Annotated[Path | None, typer.Option(help="New folder for the reader [READER-calibrated].")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, bootstrap and the draw of one image per patient.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> None:
    """Fit temperature, operating points and prediction sets of a reader to images of your own.

    The weights stay as they are; the new reader goes to a folder of its own. Needs a split that the reader
    did not learn from and that will not be used to measure it.

    Example: wetread calibrate chest-pneumonia --data films --out here
    """
    from wetread.cli.console import print_json, staged_progress
    from wetread.models.bundle import load_reader, save_reader
    from wetread.runtime import prepare_torch
    from wetread.settings import load_settings
    from wetread.training.finish import recalibrate

    _refuse_split(split)
    _refuse_alpha(alpha)
    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    loaded = load_reader(reader, [settings.paths.readers])
    target = out or Path(f"{loaded.card.name}-calibrated")
    name = _new_name(target)
    manifest = _manifest(data, split, loaded.card)
    with staged_progress() as advance:
        judged, gated = _judge(loaded, manifest, split, advance)
    where = f"{split} of {manifest.meta.name}"
    card = recalibrate(loaded.card, judged, where, alpha=alpha, seed=seed)
    result = Calibration(
        reader=f"{loaded.card.name} {loaded.card.version}",
        reader_sha256=loaded.card.sha256,
        data=manifest.meta.name,
        split=split,
        images=len(judged.logits),
        patients=len(set(judged.patients)),
        gated=gated,
        alpha=alpha,
        seed=seed,
        temperature=card.temperature,
        before=_before(loaded.card, judged, seed),
        after=_after(loaded.card, judged, alpha, seed),
        out=str(target),
    )
    training = {**card.training, "calibration": result.model_dump(mode="json", exclude={"out"})}
    card = card.model_copy(update={"name": name, "training": training})
    _refuse_existing(target)  # it took a while
    save_reader(target, card, loaded.networks, loaded.statistics)
    print_json(result) if as_json else _print(result, card)


def _refuse_split(split: str) -> None:
    if split == _TEST:
        raise SplitRefused(
            expected(
                "a split to calibrate on",
                "test, which could then no longer measure this reader",
                "use --split val; wetread dataset split makes one",
            )
        )


def _refuse_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError(expected("--alpha between 0 and 1", alpha, "set e.g. 0.1"))


def _refuse_existing(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(expected("a new folder", f"{out}, which exists", "name another with --out"))


def _new_name(out: Path) -> str:
    """Return the name of the new reader, that of its folder, after a look that the folder is free."""
    import re

    _refuse_existing(out)
    name = out.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(
            expected(
                "a folder named with letters, digits, dot, dash, underscore", repr(name), "name another with --out"
            )
        )
    return name


def _manifest(data: Path, split: str, card: ReaderCard) -> Manifest:
    """Return the data set after a look that the reader has not learned from this split of it."""
    from wetread.datasets.manifest import load_manifest
    from wetread.provenance import rows_sha256

    manifest = load_manifest(data)
    rows = manifest.table[manifest.table["split"] == split]
    learned = rows_sha256(zip(rows["path"], rows["patient"], strict=True)) == card.data.sha256
    if learned or (split == "train" and manifest.meta.name == card.data.name):
        raise SplitRefused(
            expected(
                "images that the reader did not learn from", f"those it was trained on ({split})", "use --split val"
            )
        )
    return manifest


def _judge(reader: Reader, manifest: Manifest, split: str, progress: Staged) -> tuple[Judged, int]:
    """Return logits and truth of the images of ``split`` that pass the gate, and how many do not.

    Raises:
        SplitRefused: the split leaks, or has no images.
        DatasetRefused: other labels than the reader's, or no image that it would answer for.
    """
    import numpy as np

    from wetread.evaluation.calibration import logit
    from wetread.models.predict import Reader
    from wetread.training.data import targets_of
    from wetread.training.finish import Judged
    from wetread.training.predictions import predict_manifest

    soft = Reader(
        reader.card.model_copy(update={"temperature": _SOFT}), reader.networks, reader.statistics, reader.guide
    )
    found = predict_manifest(soft, manifest, split, progress=progress)
    p = found[[f"probability_{label}" for label in reader.card.labels]].to_numpy(dtype=np.float64)
    logits = _SOFT * (np.log(p) if reader.card.task == "multiclass" else logit(p))
    table = manifest.table[manifest.table["split"] == split].reset_index(drop=True)
    patients = table["patient"].fillna(table["path"]).astype(str).to_numpy(dtype=np.str_)
    passed = np.ones(len(table), dtype=bool) if "gated" not in found else ~found["gated"].to_numpy(dtype=bool)
    if not passed.any():
        raise DatasetRefused(
            expected(
                f"images that {reader.card.name} was built for",
                f"{len(table)} that its gate refuses",
                "use another reader or train one",
            )
        )
    targets = targets_of(table, manifest.meta)
    return Judged(table[passed], logits[passed], targets[passed], patients[passed]), int((~passed).sum())


def _before(card: ReaderCard, judged: Judged, seed: int) -> CalibrationFigures:
    from wetread.models.predict import probabilities_of

    p = probabilities_of(judged.logits, card.temperature, softmax=card.task == "multiclass")
    sets = None if card.conformal is None else _sets(card, card.conformal, p)
    return _figures(card, judged, _Answers(p, sets, card.temperature), seed)


def _after(card: ReaderCard, judged: Judged, alpha: float, seed: int) -> CalibrationFigures:
    """Figures of each fold of patients with what was fitted to the others."""
    import numpy as np

    from wetread.models.predict import probabilities_of
    from wetread.training.finish import fit_calibration

    names, codes = np.unique(judged.patients, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(len(names))[codes.reshape(-1)] % FOLDS
    order, probabilities, sets = [], [], []
    for fold in np.unique(fold_of):
        inside = np.flatnonzero(fold_of == fold)
        others = _some(judged, np.flatnonzero(fold_of != fold))
        temperature, spec = fit_calibration(others, card.task, card.classes, alpha=alpha, seed=seed)
        p = probabilities_of(judged.logits[inside], temperature, softmax=card.task == "multiclass")
        order.append(inside)
        probabilities.append(p)
        sets.append(_sets(card, spec, p))
    together = [
        None if any(part is None for part in parts) else np.concatenate(parts) for parts in zip(*sets, strict=True)
    ]
    answers = _Answers(np.concatenate(probabilities), together, None)
    return _figures(card, _some(judged, np.concatenate(order)), answers, seed)


def _some(judged: Judged, index: NDArray[np.intp]) -> Judged:
    return replace(
        judged,
        table=judged.table.iloc[index],
        logits=judged.logits[index],
        targets=judged.targets[index],
        patients=judged.patients[index],
    )


def _sets(card: ReaderCard, spec: ConformalSpec, p: Floats) -> list[NDArray[np.bool_] | None]:
    """Sets (N, C) for each question; None where there are no quantiles."""
    from wetread.evaluation.conformal import prediction_sets, questions, usable_quantiles

    found: list[NDArray[np.bool_] | None] = []
    for question in questions(p, None, card.task, card.classes):
        usable = usable_quantiles(spec, question.answers)
        found.append(None if usable is None else prediction_sets(question.probabilities, usable[0]))
    return found


def _figures(card: ReaderCard, judged: Judged, answers: _Answers, seed: int) -> CalibrationFigures:
    from wetread.evaluation.calibration import ece_verdict
    from wetread.evaluation.conformal import questions, set_figures

    verdicts: dict[str, EceVerdict | None] = {}
    notes = []
    for column, label in enumerate(card.labels):
        try:
            verdicts[label] = ece_verdict(
                answers.probabilities[:, column], judged.targets[:, column], judged.patients, seed=seed
            )
        except StatisticRefused as refused:
            verdicts[label] = None
            notes.append(f"{label}: {refused}")
    asked = questions(answers.probabilities, judged.targets, card.task, card.classes)
    sets: dict[str, SetFigures | None] = {}
    for number, question in enumerate(asked):
        made = answers.sets[number] if answers.sets else None
        sets[question.name or _ALL] = None if made is None else set_figures(made, question, judged.patients)
    return CalibrationFigures(
        temperature=answers.temperature, nll=_nll(asked), ece=verdicts, sets=sets, notes=tuple(notes)
    )


def _nll(asked: tuple[Question, ...]) -> float:
    """Mean negative log likelihood over the known answers to all questions."""
    import numpy as np

    from wetread.evaluation.calibration import CLIP

    lost = []
    for question in asked:
        known = np.flatnonzero(question.truth >= 0)
        lost.append(-np.log(np.clip(question.probabilities[known, question.truth[known]], CLIP, 1)))
    return float(np.concatenate(lost).mean())


def _print(result: Calibration, card: ReaderCard) -> None:
    from rich.table import Table
    from rich.text import Text

    from wetread.cli.console import stdout, warn

    console = stdout()
    left_out = f"; {result.gated} more are refused by its gate" if result.gated else ""
    console.print(
        f"{result.reader} on {result.split} of {result.data}: {result.images} images of {result.patients} patients"
        f"{left_out}",
        style="bold",
        markup=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "before", f"after, {FOLDS} folds"):
        table.add_column(Text(column), overflow="fold")
    before, after = dict(_rows(result.before)), dict(_rows(result.after))
    table.add_row("temperature", f"{result.before.temperature:.3f}", f"{result.temperature:.3f}, all images")
    for name in dict.fromkeys((*before, *after)):
        table.add_row(Text(name), before.get(name, ""), after.get(name, ""))
    console.print(table)
    for note in dict.fromkeys((*result.after.notes, *(card.conformal.notes if card.conformal else ()))):
        warn(note)
    typer.echo(f"{result.out}\nNext: wetread read FILE --reader {result.out}")


def _rows(figures: CalibrationFigures) -> list[tuple[str, str]]:
    """Name and text of each line of one column."""
    from wetread.reporting.numbers import estimate

    rows = [("NLL (nats)", f"{figures.nll:.4f}")]
    for label, verdict in figures.ece.items():
        shown = "not given" if verdict is None else f"{verdict.ece:.3f}, {verdict.verdict}"
        null = "" if verdict is None else f"{verdict.null_p95:.3f}"
        slope = "not given" if verdict is None else estimate(verdict.slope)
        rows += [
            (f"ECE {label}", shown),
            (f"ECE {label}, perfect reader below", null),
            (f"calibration slope {label}", slope),
        ]
    for name, sets in figures.sets.items():
        heading = f"sets, {name}"
        if sets is None:
            rows.append((f"{heading}: truth inside", "no quantiles"))
            continue
        rows.append((f"{heading}: truth inside", estimate(sets.coverage)))
        rows += [(f"{heading}: of {answer}", estimate(found)) for answer, found in sets.by_class.items()]
        rows.append((f"{heading}: answers in each", f"{sets.mean_size:.2f}"))
        rows.append((f"{heading}: abstains", estimate(sets.abstains)))
    return rows
