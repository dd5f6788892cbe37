"""How often the audit finds a shortcut that was planted on purpose, and how often it fails a data set without one.

Each set is a random sample of 300 films of a bank, half of them positive: about what one department collects, and few
enough that an AUROC of 0.56 is all that stands out from chance; what is found here is found in the 1,000 images of
an audit. Positives carry a true sign inside the lungs; then a shortcut is planted with a strength and a correlation
(the probability that a positive carries it, and that a negative does not). *Detected*: T3 does not pass and the AUROC
outside the organ is above chance (its lower bound, and what shuffled labels give), or T2 fails. Clean sets carry the
sign alone. Bars are read over all strengths, the weakest of which nobody sees.

Kind *noise* is the noise of one source: who carries it comes from another source, which T2 is told.
Settings of the probes were chosen on phantoms of other seeds (``TUNED``), and on none of these sets.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, arguments, write_figures
from wetread.audit.background import judged
from wetread.audit.features import on_grid, texture_of
from wetread.audit.material import Material, material_of_arrays
from wetread.audit.sources import sources_line
from wetread.audit.thresholds import Thresholds
from wetread.audit.views import hidden_area
from wetread.datasets.manifest import load_manifest
from wetread.datasets.phantoms import render, sample_spec
from wetread.datasets.plant import Kind, PlantSpec, planted_pixels
from wetread.evaluation.intervals import wilson
from wetread.imaging import load_image
from wetread.models.bundle import load_segmenter
from wetread.runtime import prepare_torch

KINDS: tuple[Kind, ...] = ("corner-marker", "border", "exposure", "text", "noise")
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
CORRELATIONS = (0.7, 0.9)
SIGNS: tuple[tuple[Kind, float], ...] = (("organ-blob", 0.7), ("organ-blob", 0.4), ("organ-texture", 0.2))
"""True signs: the first in sets with a shortcut, all three in turn in clean sets."""
PER_SET = 300
PHANTOMS, PHANTOM_PX = 2000, 160
REAL = 600
TUNED = 77
"""Seed of the phantoms on which settings were chosen; those reported have another."""
SEED = 20262
BARS = {0.9: ">= 0.95", 0.7: ">= 0.8"}
FALSE_BAR = "<= 0.05"
PROTOCOL = (
    f"sets of {PER_SET} films, half positive, true sign inside the lungs in all positives; detected: T3 not PASS and "
    "AUROC outside the organ above chance, or T2 FAIL; Wilson 95 % interval"
)

Pixels = NDArray[np.float32]
Stored = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One set: a substrate, what is planted (kind '' for nothing), and its number."""

    substrate: str
    kind: str
    strength: float
    correlation: float
    number: int

    @property
    def seed(self) -> int:
        """Decides sample, labels and carriers."""
        words = f"{self.substrate} {self.kind} {self.strength} {self.correlation}"
        return int(np.random.default_rng([SEED, self.number, *words.encode()]).integers(2**31))


@dataclass(frozen=True)
class Outcome:
    """What the audit said of one set; ``outside`` and ``full`` are AUROC, ``above`` whether the first beats chance."""

    case: Case
    t3: str
    t2: str
    outside: float
    full: float
    above: bool
    seconds: float

    @property
    def detected(self) -> bool:
        """As the module says."""
        return self.t2 == "FAIL" or (self.t3 in ("WARN", "FAIL") and self.above)

    @property
    def failed(self) -> bool:
        """Whether a line failed the set."""
        return "FAIL" in (self.t2, self.t3)


def _stored(film: Pixels) -> Stored:
    """As a file of 8 bits holds it: all films of a set go through the same rounding."""
    return np.asarray(np.rint(film * np.float32(255)), np.uint8)


def _shown(film: Stored) -> Pixels:
    return film.astype(np.float32) / np.float32(255)


class Bank:
    """Films with masks, each as it is and with every sign, measured once."""

    def __init__(self, films: Sequence[Pixels], masks: Sequence[NDArray[np.bool_]]) -> None:
        self.films, self.masks = [_stored(film) for film in films], list(masks)

    @cached_property
    def plain(self) -> Material:
        """The films as they are."""
        return self._measured(self.films)

    @cached_property
    def signed(self) -> list[tuple[list[Stored], Material]]:
        """The films with each of :data:`SIGNS`."""
        found = []
        for kind, strength in SIGNS:
            films = []
            for number, (film, mask) in enumerate(zip(self.films, self.masks, strict=True)):
                spec = PlantSpec(kind=kind, strength=strength, correlation=1.0, seed=SEED + number)
                changed, _ = planted_pixels([_shown(film)], [1], ["patient"], spec, [mask])
                films.append(_stored(changed[0]))
            found.append((films, self._measured(films)))
        return found

    def _measured(self, films: Sequence[Stored]) -> Material:
        none = np.zeros((len(films), 1), np.float32)
        return material_of_arrays([_shown(film) for film in films], none, masks=self.masks)

    def material(self, case: Case) -> Material:
        """The set of a case. Only films that carry the shortcut are measured again."""
        rng = np.random.default_rng(case.seed)
        rows = rng.permutation(len(self.films))[:PER_SET]
        positive = rng.permutation(np.arange(len(rows)) % 2 == 0)
        films, signed = self.signed[0 if case.kind else case.number % len(SIGNS)]
        part, other = self.plain.take(rows), signed.take(rows)
        grey = np.where(positive[:, None, None], other.grey, part.grey)
        texture = np.where(positive[:, None, None, None], other.texture, part.texture)
        sources = None
        if case.kind:
            shown = [_shown(films[i] if yes else self.films[i]) for i, yes in zip(rows, positive, strict=True)]
            spec = PlantSpec.model_validate(
                {"kind": case.kind, "strength": case.strength, "correlation": case.correlation, "seed": case.seed}
            )
            shown, carries = planted_pixels(shown, positive.astype(float), list(range(len(rows))), spec)
            for i in np.flatnonzero(carries):
                film = _shown(_stored(shown[i]))
                grey[i], texture[i] = on_grid(film), texture_of(film)
            sources = np.where(carries, "site B", "site A") if case.kind == "noise" else None
        targets = positive[:, None].astype(np.float32)
        return replace(part, grey=grey, texture=texture, targets=targets, sources=sources)


def phantoms(count: int, seed: int) -> Bank:
    """Rendered films of all sources with their lungs."""
    rng = np.random.default_rng(seed)
    made = [render(sample_spec(rng, size_px=PHANTOM_PX)) for _ in range(count)]
    return Bank([phantom.image for phantom in made], [phantom.lung_left | phantom.lung_right for phantom in made])


def radiographs(dataset: Path, count: int) -> Bank:
    """Normal films of one hospital, one for each patient, with the lungs that the shipped segmenter finds.

    One class alone, because the classes of this data set have a shortcut of their own.
    """
    manifest = load_manifest(dataset)
    table = manifest.table[manifest.table["label"] == manifest.meta.classes[0]].drop_duplicates("patient")
    segmenter = load_segmenter("lungs")
    films, masks = [], []
    for path in table.sample(min(count, len(table)), random_state=SEED)["path"]:
        image = load_image(manifest.path_of(path))
        mask = segmenter.masks(image)["lungs"]
        if mask.any():
            films.append(image.pixels)
            masks.append(mask)
    return Bank(films, masks)


def cases(substrate: str, repeats: int, clean: int, strengths: Sequence[float]) -> Iterator[Case]:
    """All sets, one of each kind before any second, so that an unfinished run is balanced."""
    for number in range(max(repeats, clean)):
        if number < repeats:
            for correlation in CORRELATIONS:
                for kind in KINDS:
                    yield from (Case(substrate, kind, strength, correlation, number) for strength in strengths)
        if number < clean:
            yield Case(substrate, "", 0.0, 0.5, number)


def audited(bank: Bank, case: Case) -> Outcome:
    """Plant, and ask the audit."""
    begin = time.process_time()
    material = bank.material(case)
    found = judged(material, hidden_area(material), 0, Thresholds())
    if found.outside is None or found.full is None:
        raise ValueError(f"expected a set that can be judged, got {found.why}; give it more films")
    t2 = sources_line(material, Thresholds())[0].answer if material.sources is not None else ""
    areas = (found.outside.auroc.value or 0.0, found.full.auroc.value or 0.0)
    seconds = round(time.process_time() - begin, 2)
    return Outcome(case, found.answer, t2, *areas, found.outside.above_chance, seconds)


def run(make: Callable[[], Bank], wanted: Sequence[Case], log: Path) -> list[Outcome]:
    """Audit what the log does not have yet; each outcome is a line of the log. The bank is made if it is needed."""
    known = {outcome.case: outcome for outcome in _logged(log)}
    missing = [case for case in wanted if case not in known]
    if missing:
        bank = make()
        _ = bank.plain, bank.signed  # measured before a set is timed
        log.parent.mkdir(parents=True, exist_ok=True)
        for case in missing:
            known[case] = audited(bank, case)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({**known[case].__dict__, "case": case.__dict__}) + "\n")
    return [known[case] for case in wanted]


def _logged(log: Path) -> Iterator[Outcome]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    for row in map(json.loads, lines):
        yield Outcome(**{**row, "case": Case(**row["case"])})


def figures_of(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Rates over all, by kind, and by kind and strength; false alarms; the time of a set."""
    found = []
    for substrate in dict.fromkeys(outcome.case.substrate for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.case.substrate == substrate]
        found += _planted_figures(substrate, [outcome for outcome in mine if outcome.case.kind])
        clean = [outcome for outcome in mine if not outcome.case.kind]
        found.append(_rate(f"{substrate}, clean: failed", [o.failed for o in clean], FALSE_BAR))
        found.append(_rate(f"{substrate}, clean: warned of something outside the organ", [o.detected for o in clean]))
        found.append(_rate(f"{substrate}, clean: passed", [o.t3 == "PASS" for o in clean]))
        seconds = [outcome.seconds for outcome in mine]
        found.append(Figure(f"{substrate}: processor time of a set", float(np.median(seconds)), "s",
                            "planting, probes, T3 (and T2 of kind noise); one thread", len(seconds), min(seconds),
                            max(seconds)))  # fmt: skip
    return found


def _planted_figures(substrate: str, outcomes: Sequence[Outcome]) -> list[Figure]:
    found = []
    for correlation in CORRELATIONS:
        here = [outcome for outcome in outcomes if outcome.case.correlation == correlation]
        name = f"{substrate}, correlation {correlation}"
        found.append(_rate(f"{name}: detected", [o.detected for o in here], BARS[correlation]))
        found.append(_rate(f"{name}: failed", [o.failed for o in here]))
        for strength in STRENGTHS:
            of_strength = [o.detected for o in here if o.case.strength == strength]
            found.append(_rate(f"{name}, strength {strength}: detected", of_strength))
        for kind in KINDS:
            of_kind = [o for o in here if o.case.kind == kind]
            found.append(_rate(f"{name}, {kind}: detected", [o.detected for o in of_kind]))
            found.append(_rate(f"{name}, {kind}: failed", [o.failed for o in of_kind]))
            for strength in STRENGTHS:
                cell = [o.detected for o in of_kind if o.case.strength == strength]
                found.append(_rate(f"{name}, {kind}, strength {strength}: detected", cell))
    return [figure for figure in found if figure.n]


def _rate(what: str, hits: Sequence[bool], bar: str = "") -> Figure:
    share = wilson(sum(hits), len(hits))
    value = float("nan") if share.value is None else share.value
    return Figure(what, value, "share of sets", PROTOCOL, len(hits), share.low, share.high, bar if hits else "")


def main() -> None:
    parser = arguments(__doc__, "results/planted.csv")
    parser.add_argument("--log", type=Path, required=True, help="outcomes so far (JSON lines): a run goes on from here")
    parser.add_argument("--repeats", type=int, default=10, help="sets of each kind, strength and correlation")
    parser.add_argument("--clean", type=int, default=100, help="sets without a shortcut (default: %(default)s)")
    parser.add_argument("--dataset", type=Path, help="Kermany data set, for the part on real films")
    parser.add_argument("--real-repeats", type=int, default=4, help="the same for real films (default: %(default)s)")
    parser.add_argument("--real-only", action="store_true", help="leave the phantoms to another process on this log")
    asked = parser.parse_args()
    prepare_torch(1)
    outcomes = []
    if not asked.real_only:
        drawn = list(cases("phantoms", asked.repeats, asked.clean, STRENGTHS))
        outcomes += run(lambda: phantoms(PHANTOMS, SEED), drawn, asked.log)
    if asked.dataset is not None:
        real = list(cases("radiographs", asked.real_repeats, asked.clean, STRENGTHS))
        outcomes += run(lambda: radiographs(asked.dataset, REAL), real, asked.log)
    figures = figures_of(outcomes)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:70} {figure.value:.3f} ({figure.low or 0:.3f} to {figure.high or 0:.3f}) {figure.met}")


if __name__ == "__main__":
    main()
