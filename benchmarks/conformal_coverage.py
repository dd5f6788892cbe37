"""Whether prediction sets keep their promise, and how often the ECE verdict errs.

Conformal: a pool of simulated cases is divided at random 1,000 times into calibration and test, or new cases are drawn
each time. The covered test cases then follow a Beta-binomial law, the coverage of all new cases a Beta law, exactly;
Kolmogorov-Smirnov asks whether they do (counts are made continuous by a uniform number within their step). A seed
gives a p below .01 in one of a hundred such rows by chance. Verdict: logits are normal with the stated spread; a
miscalibrated reader has a true ECE of .10. The flaw: simulated scores, and no shift between calibration and test,
which no conformal set survives.

    python -m benchmarks.conformal_coverage
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import beta, betabinom, kstest

from benchmarks.common import Figure, arguments, write_figures
from wetread.evaluation.calibration import ece_verdict
from wetread.evaluation.conformal import (
    conformal_quantile,
    fit_sets,
    prediction_sets,
    quantile_rank,
    questions,
)
from wetread.evaluation.intervals import wilson

Floats = NDArray[np.float64]

ALPHA = 0.1
CLASSES = ("a", "b", "c")
SHIFTS = (1.5, 0.5, -0.5)
"""Mean logits of the classes: about 60, 25 and 15 % of the cases."""
BINS = 15
TRUE_ECE = 0.10
SPREADS = {1.0: ".74", 2.0: ".86", 3.0: ".92"}
"""Standard deviation of the logits -> AUROC of the reader if it is calibrated."""


def cases(n: int, generator: np.random.Generator) -> tuple[Floats, NDArray[np.intp]]:
    """Return probabilities (n, 3) of an overconfident reader and the truth (n,)."""
    logits = generator.normal(SHIFTS, 1.5, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (generator.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    sharp = p**2 / (p**2).sum(axis=1, keepdims=True)  # coverage must not depend on calibration
    return sharp, truth


@dataclass
class Tally:
    """Splits: covered and tested cases, calibration cases, and a uniform number to spread each count over its step.

    ``tested`` 0: ``covered`` is the coverage of all new cases.
    """

    rows: list[tuple[float, int, int, float]] = field(default_factory=list)

    def add_count(self, covered: int, tested: int, calibrated: int, generator: np.random.Generator) -> None:
        """Add a split with ``covered`` of ``tested`` cases, to be judged by the Beta-binomial law."""
        self.rows.append((covered, tested, calibrated, generator.random()))

    def add_share(self, coverage: float, calibrated: int) -> None:
        """Add the exact coverage of all new cases, to be judged by the Beta law."""
        self.rows.append((coverage, 0, calibrated, 0.0))

    def positions(self) -> tuple[Floats, Floats]:
        """Return the coverage of each split, and where it lies in its law: uniform on (0, 1) if all is well."""
        covered, tested, calibrated, luck = np.array(self.rows).T
        k = np.array([quantile_rank(int(n), ALPHA) for n in calibrated])
        rest = calibrated + 1 - k
        if not tested.any():
            return covered, beta.cdf(covered, k, rest)
        below = betabinom.cdf(covered - 1, tested, k, rest)
        return covered / tested, below + luck * betabinom.pmf(covered, tested, k, rest)

    def figures(self, what: str, protocol: str, bar: str = ">= 0.01") -> list[Figure]:
        """Mean coverage with its 2.5th and 97.5th percentile, and the p of Kolmogorov-Smirnov."""
        coverage, position = self.positions()
        low, high = (float(bound) for bound in np.quantile(coverage, [0.025, 0.975]))
        n, mean = len(coverage), float(coverage.mean())
        p = float(kstest(position, "uniform").pvalue)
        return [
            Figure(f"{what}: mean coverage", mean, "share", protocol, n, low, high),
            Figure(f"{what}: Kolmogorov-Smirnov p", p, "p", protocol, n, bar=bar),
        ]


def splits_of_a_pool(repetitions: int, calibration: int, seed: int) -> list[Figure]:
    """Marginal and class-conditional coverage over random splits of one pool of three classes."""
    generator = np.random.default_rng([seed, calibration])
    tested = 2000
    p, truth = cases(calibration + tested, generator)
    one_hot = np.eye(3)[truth]
    tallies = {name: Tally() for name in ("marginal", *CLASSES)}
    for _ in range(repetitions):
        order = generator.permutation(len(p))
        own, new = order[:calibration], order[calibration:]
        spec = fit_sets(p[own], one_hot[own], "multiclass", CLASSES, alpha=ALPHA)
        together, each = (
            prediction_sets(p[new], np.array([table[name] for name in CLASSES], dtype=np.float64))
            for table in (spec.marginal, spec.conditional)
        )
        hit = together[np.arange(tested), truth[new]]
        tallies["marginal"].add_count(int(hit.sum()), tested, calibration, generator)
        for number, name in enumerate(CLASSES):
            inside = each[truth[new] == number, number]
            tallies[name].add_count(int(inside.sum()), len(inside), spec.n[name], generator)
    protocol = f"{calibration} calibration and {tested} test cases, {repetitions} random splits of one pool, alpha .1"
    figures = tallies["marginal"].figures(f"3 classes, n = {calibration}, marginal", protocol)
    for name in CLASSES:
        figures += tallies[name].figures(f"3 classes, n = {calibration}, class-conditional, class {name}", protocol)
    return figures


def new_cases(repetitions: int, calibration: int, seed: int) -> list[Figure]:
    """Exact coverage where scores are uniform, so that the quantile is the share of new cases that it covers."""
    generator = np.random.default_rng([seed, calibration, 1])
    tally = Tally()
    for _ in range(repetitions):
        tally.add_share(conformal_quantile(generator.random(calibration), ALPHA), calibration)
    protocol = f"uniform scores, {repetitions} calibration sets, coverage of all new cases known exactly"
    return tally.figures(f"all new cases, n = {calibration}", protocol)


def labels(repetitions: int, calibration: int, seed: int) -> list[Figure]:
    """Coverage of a rare label of a multi-label reader, present and absent apart."""
    generator = np.random.default_rng([seed, calibration, 2])
    names = ("no rare", "rare")
    tallies = {name: Tally() for name in names}
    tested = 2000
    for _ in range(repetitions):
        z = generator.normal(-2, 1.5, calibration + tested)
        p = (1 / (1 + np.exp(-z)))[:, None]
        y = (generator.random(len(p)) < p[:, 0]).astype(float)[:, None]
        spec = fit_sets(p[:calibration], y[:calibration], "multilabel", ("rare",), alpha=ALPHA)
        question = questions(p[calibration:], y[calibration:], "multilabel", ("rare",))[0]
        quantiles = np.array([spec.conditional[name] for name in names], dtype=np.float64)
        sets = prediction_sets(question.probabilities, quantiles)
        for number, name in enumerate(names):
            inside = sets[question.truth == number, number]
            tallies[name].add_count(int(inside.sum()), len(inside), spec.n[name], generator)
    protocol = f"{calibration} calibration and {tested} new cases each time, label in about 19 %, alpha .1"
    return [
        figure for name in names for figure in tallies[name].figures(f"label, n = {calibration}, '{name}'", protocol)
    ]


def patients(repetitions: int, seed: int) -> list[Figure]:
    """Ten images of each of 100 patients, half of the variance the patient's: one of each drawn, or all counted.

    Tested on patients with one image each, as new ones come.
    """
    generator = np.random.default_rng([seed, 3])
    groups = np.repeat(np.arange(100), 10)
    drawn, counted = Tally(), Tally()
    truth, classes = np.ones((len(groups), 1)), ("no", "yes")
    tested = 2000
    for number in range(repetitions):
        own, new = _scores(groups, generator), _scores(np.arange(tested), generator)
        for tally, chosen in ((drawn, groups), (counted, None)):
            spec = fit_sets(1 - own[:, None], truth, "binary", classes, patients=chosen, alpha=ALPHA, seed=number)
            covered = int((new <= (spec.marginal["yes"] or 0.0)).sum())
            tally.add_count(covered, tested, spec.n["yes"], generator)
    protocol = f"100 patients with 10 images each, {repetitions} times; tested on one image of each of {tested} others"
    shown = drawn.figures("patients, one image of each (the default)", protocol)
    return shown + counted.figures("patients, every image counted as a case", f"{protocol}; shown as a warning", bar="")


def _scores(groups: NDArray[np.intp], generator: np.random.Generator) -> Floats:
    """Scores (n,) in [0, 1] that images of one patient share in part."""
    shared, own = generator.normal(size=groups.max() + 1)[groups], generator.normal(size=len(groups))
    return _sigmoid(np.sqrt(0.5) * (shared + own))


@dataclass(frozen=True)
class Study:
    """Simulated readings: the true logit is ``factor`` times the promised one plus ``offset``."""

    n: int
    spread: float
    factor: float = 1.0
    offset: float = 0.0
    per_patient: int = 1

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats, NDArray[np.intp] | None]:
        """Return probabilities, truth and patients; a patient's images share logit and luck."""
        groups = np.arange(self.n) // self.per_patient
        z = self.spread * generator.normal(size=groups[-1] + 1)[groups]
        luck = generator.random(groups[-1] + 1)[groups]
        truth = (luck < _sigmoid(self.factor * z + self.offset)).astype(np.float64)
        return _sigmoid(z), truth, groups if self.per_patient > 1 else None


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)))


def _solve(spread: float, change: Callable[[Floats, float], Floats], bounds: tuple[float, float]) -> float:
    """Return the factor or offset whose true ECE is :data:`TRUE_ECE`, by quadrature."""
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    logits = spread * z

    def off(value: float) -> float:
        return float((np.abs(_sigmoid(logits) - _sigmoid(change(logits, value))) * density).sum()) - TRUE_ECE

    return float(brentq(off, *bounds))


def studies() -> list[tuple[str, Study, str]]:
    """What is simulated: name, study, and the bar for the share of FAIL."""
    found = [
        (f"calibrated, AUROC {area}, n = {n}", Study(n, spread), "<= 0.05")
        for spread, area in SPREADS.items()
        for n in (100, 500, 2000)
    ]
    found.append(("calibrated, AUROC .86, 5 copies of each of 100 patients", Study(500, 2.0, per_patient=5), "<= 0.05"))
    for spread, area in SPREADS.items():
        sharp = _solve(spread, lambda z, value: value * z, (0.01, 0.99))
        shifted = _solve(spread, lambda z, value: z + value, (0.01, 5.0))
        found.append((f"overconfident, AUROC {area}, n = 500", Study(500, spread, factor=sharp), ">= 0.8"))
        found.append((f"too low, AUROC {area}, n = 500", Study(500, spread, offset=shifted), ">= 0.8"))
    return found


def verdicts(name: str, study: Study, bar: str, repetitions: int, seed: int) -> list[Figure]:
    """Share of FAIL with its Wilson interval, and of PASS."""
    generator = np.random.default_rng([seed, *name.encode()])
    counts = {"FAIL": 0, "PASS": 0, "WARN": 0}
    for number in range(repetitions):
        p, y, groups = study.draw(generator)
        counts[ece_verdict(p, y, groups, bins=BINS, resamples=200, seed=number).verdict] += 1
    protocol = f"{repetitions} simulated studies, {BINS} bins, 200 resamples (1,000 is the default); interval: Wilson"
    if bar.startswith(">="):
        protocol += f"; true ECE {TRUE_ECE:.2f}"
    figures = []
    for verdict in ("FAIL", "PASS"):
        share = wilson(counts[verdict], repetitions)
        value = float("nan") if share.value is None else share.value
        shown = bar if verdict == "FAIL" else ""
        what = f"ECE verdict {verdict}: {name}"
        figures.append(Figure(what, value, "share", protocol, repetitions, share.low, share.high, shown))
    return figures


def measure(repetitions: int, studied: int, seed: int = 0) -> list[Figure]:
    """Return every figure; ``repetitions`` of conformal splits, ``studied`` of each study of the verdict."""
    figures: list[Figure] = []
    for calibration in (100, 1000):
        figures += new_cases(repetitions, calibration, seed)
    for calibration in (200, 1000):
        figures += splits_of_a_pool(repetitions, calibration, seed)
    figures += labels(repetitions, 500, seed)
    figures += patients(repetitions, seed)
    for name, study, bar in studies():
        figures += verdicts(name, study, bar, studied, seed)
    return figures


def main(given: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, "results/conformal_coverage.csv")
    parser.add_argument("--repetitions", type=int, default=1000, help="random splits (default: %(default)s)")
    parser.add_argument("--studies", type=int, default=400, help="of each kind for the verdict (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(given)
    figures = measure(asked.repetitions, asked.studies, asked.seed)
    write_figures(asked.out, figures)
    for figure in figures:
        print(f"{figure.what:72} {figure.value:8.4f} {figure.bar:8} {figure.met}")


if __name__ == "__main__":
    main()
