"""Cheap probes: how well a label can be told from a few views of an image, on images that the probe never saw.

Decided here, once for all data sets, so that nothing is chosen by looking at the result: kernel ridge regression, a
linear and a Gaussian kernel for each view, its penalty by leave-one-out error (in closed form, Rifkin & Lippert
2007) inside the training folds; then the views are added with weights that grow with what each of them could tell,
again by leave-one-out inside the training folds. Five folds keep patients whole. The result is one score for an
image and one AUROC for a question: several views do not mean several chances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.splits import stratified_folds
from wetread.evaluation.auroc import auroc, auroc_estimate
from wetread.evaluation.intervals import unbounded
from wetread.types import Estimate

__all__ = [
    "CONTROLS",
    "FOLDS",
    "MINIMUM_PATIENTS",
    "Told",
    "Views",
    "assessable",
    "between_patients",
    "learned",
    "out_of_fold",
    "patient_folds",
    "told",
    "told_each",
]

Floats = NDArray[np.float64]
Views = Mapping[str, NDArray[np.float32]]
"""Names of views to features float32 (N, D)."""

FOLDS = 5
MINIMUM_PATIENTS = 30
"""Patients of each class below which no probe is asked: five folds would learn from fewer than 24."""
_PENALTIES = 10.0 ** np.arange(-3, 3.5, 0.5)
"""Candidates, in units of the mean eigenvalue of the kernel."""
CONTROLS = 20
"""Shuffles of the labels that a decision is compared with."""
_STUDENT = 2.086
"""97.5th percentile of Student's t with 20 degrees of freedom: the spread of chance is itself estimated."""
_CLIP = 5.0
"""Features are standardised and cut here: one odd image must not be a direction of its own."""


@dataclass(frozen=True)
class Told:
    """What a probe told: scores (n,) on images that it had not seen, their targets, patients, and the AUROC.

    ``chance``: AUROC of the same probe for labels that were shuffled between patients, (controls,); empty where that
    was not asked.
    """

    scores: Floats
    targets: NDArray[np.bool_]
    patients: NDArray[np.str_]
    auroc: Estimate
    chance: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def above_chance(self) -> bool:
        """Whether the lower bound lies above 0.5, and the value above what shuffled labels give.

        Out-of-fold scores of five folds depend on each other, so that chance alone spreads further than the interval of
        fixed scores says (Bengio & Grandvalet 2004): the value must exceed 0.5 by Student's quantile of that spread.
        """
        if self.floor is None or self.floor <= 0.5 or self.auroc.value is None:
            return False
        if not len(self.chance):
            return True
        return self.auroc.value - 0.5 > _STUDENT * float(np.sqrt(np.mean((self.chance - 0.5) ** 2)))

    @property
    def floor(self) -> float | None:
        """The lower bound of the AUROC; None where scores are all alike.

        A perfect order has no interval by variance: its bound is that of a proportion of which all patients of the
        smaller class were successes (Clopper & Pearson 1934).
        """
        if self.auroc.value != 1.0:
            return self.auroc.low
        fewest = min(np.unique(self.patients[self.targets == value]).size for value in (True, False))
        return float(0.025 ** (1 / fewest))

    @property
    def control(self) -> Estimate:
        """Mean AUROC for shuffled labels, from the least to the largest."""
        if not len(self.chance):
            return unbounded(None, len(self.targets), "not asked")
        low, high = float(self.chance.min()), float(self.chance.max())
        method = f"{len(self.chance)} shuffles, least to largest"
        return Estimate(value=float(self.chance.mean()), low=low, high=high, n=len(self.targets), method=method)


def assessable(targets: NDArray[np.bool_], patients: NDArray[np.str_]) -> str:
    """Why a target (n,) is too rare to be probed, or ''."""
    counts = [np.unique(patients[targets == value]).size for value in (True, False)]
    if min(counts) >= MINIMUM_PATIENTS:
        return ""
    return f"{counts[0]} patients with and {counts[1]} without it, fewer than {MINIMUM_PATIENTS} of one"


def patient_folds(targets: NDArray[np.bool_], patients: NDArray[np.str_], seed: int = 0) -> NDArray[np.int64]:
    """Fold of each image (n,), 0 to 4: patients whole, the target's share alike."""
    codes = np.unique(patients, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return stratified_folds(targets.astype(np.str_), codes, FOLDS, seed)


def told(
    views: Views, targets: NDArray[np.bool_], patients: NDArray[np.str_], seed: int = 0, *, controls: int = 0
) -> Told:
    """Ask what ``views`` of n images tell about ``targets`` (n,)."""
    return told_each(views, {"all": tuple(views)}, targets, patients, seed, controls=controls)["all"]


def told_each(
    views: Views,
    groups: Mapping[str, Sequence[str]],
    targets: NDArray[np.bool_],
    patients: NDArray[np.str_],
    seed: int = 0,
    *,
    controls: int = 0,
) -> dict[str, Told]:
    """Ask the same of several groups of views, each named by its views; what they share is computed once.

    ``controls``: how often the labels are shuffled for comparison.
    """
    shuffled = [between_patients(targets, patients, np.random.default_rng([seed, 3, k])) for k in range(controls)]
    asked = np.stack([targets, *shuffled], axis=1)
    scores = out_of_fold(views, groups, asked, patient_folds(targets, patients, seed))
    return {
        name: Told(
            found[:, 0],
            targets,
            patients,
            auroc_estimate(found[:, 0], targets, groups=patients),
            np.array([auroc(column, truth) for column, truth in zip(found[:, 1:].T, shuffled, strict=True)]),
        )
        for name, found in scores.items()
    }


def between_patients(
    targets: NDArray[np.bool_], patients: NDArray[np.str_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Shuffle targets (n,) between patients: what one patient's images have stays together, as far as counts allow."""
    codes = np.unique(patients, return_inverse=True)[1].reshape(-1)
    taken, given = (np.argsort(rng.permutation(codes.max() + 1)[codes], kind="stable") for _ in range(2))
    shuffled = np.empty_like(targets)
    shuffled[taken] = targets[given]
    return shuffled


def out_of_fold(
    views: Views, groups: Mapping[str, Sequence[str]], targets: NDArray[np.bool_], fold: NDArray[np.int64]
) -> dict[str, Floats]:
    """Score every image by what was learned from the other folds.

    ``targets``: (n, m), m questions about the same images. Returns (n, m) for each group, higher means positive.
    """
    scores = {name: np.zeros(targets.shape) for name in groups}
    for number in np.unique(fold):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        for name, found in learned(views, groups, targets, train, test).items():
            scores[name][test] = found
    return scores


def learned(
    views: Views,
    groups: Mapping[str, Sequence[str]],
    targets: NDArray[np.bool_],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
) -> dict[str, Floats]:
    """Scores (len(test), m) of the images ``test`` (row numbers) by what ``train`` taught, for each group of views."""
    wanted = {view for members in groups.values() for view in members}
    parts = {view: _view_told(views[view], targets[train], train, test) for view in views if view in wanted}
    found = {}
    for name, members in groups.items():
        total = sum((parts[view][0] for view in members), np.zeros((len(test), targets.shape[1])))
        found[name] = total / np.maximum(sum(parts[view][1] for view in members), 1e-12)
    return found


def _view_told(
    features: NDArray[np.float32], truth: NDArray[np.bool_], train: NDArray[np.intp], test: NDArray[np.intp]
) -> tuple[Floats, Floats]:
    """Weighted scores (t, m) of the images ``test`` by one view, both kernels added, and the sums of weights (m,)."""
    total, weights = np.zeros((len(test), truth.shape[1])), np.zeros(truth.shape[1])
    a, b = _standardised(features[train], features[test])
    for inside, across in _kernels(a, b):
        own, new = _ridge(inside, across, truth.astype(np.float64))
        weight = np.array([_evidence(*pair) for pair in zip(own.T, truth.T, strict=True)])
        total += weight * new / np.maximum(own.std(axis=0), 1e-12)
        weights += weight
    return total, weights


def _standardised(train: NDArray[np.float32], test: NDArray[np.float32]) -> tuple[Floats, Floats]:
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.where(std > 1e-6, std, np.inf)  # a constant feature becomes 0
    return np.clip((train - mean) / scale, -_CLIP, _CLIP), np.clip((test - mean) / scale, -_CLIP, _CLIP)


def _kernels(a: Floats, b: Floats) -> tuple[tuple[Floats, Floats], ...]:
    """Linear and Gaussian kernel, each (train, train) and (test, train)."""
    width = a.shape[1]
    inner, outer = a @ a.T / width, b @ a.T / width
    long, longer = np.diag(inner), (b * b).sum(axis=1) / width
    near = np.exp(inner - (long[:, None] + long) / 2)
    far = np.exp(outer - (longer[:, None] + long) / 2)
    return (inner, outer), (near, far)


def _ridge(inside: Floats, across: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Leave-one-out scores (n, m) of the training images and scores (t, m) of new ones, both without the mean.

    ``truth``: (n, m); each column gets the penalty with the least leave-one-out error.
    """
    values, vectors = np.linalg.eigh(inside)
    values = np.clip(values, 0, None)
    centred = truth - truth.mean(axis=0)
    projected, squares = vectors.T @ centred, vectors * vectors
    least, own = np.full(truth.shape[1], np.inf), centred.copy()
    chosen = np.zeros_like(least)
    for penalty in _PENALTIES * max(float(values.mean()), 1e-12):
        shrink = values / (values + penalty)
        leverage = (squares @ shrink)[:, None]
        left_out = (vectors @ (shrink[:, None] * projected) - leverage * centred) / (1 - leverage + 1e-9)
        error = ((centred - left_out) ** 2).sum(axis=0)
        better = error < least
        least[better], chosen[better], own[:, better] = error[better], penalty, left_out[:, better]
    return own, across @ (vectors @ (projected / (values[:, None] + chosen)))


def _evidence(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Weight of a view: the square of its AUROC above 0.5, in standard errors of chance; 0 below it."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    error = np.sqrt((positive + negative + 1) / (12 * positive * negative))  # Mann & Whitney 1947
    return float(max(0.0, (auroc(scores, truth) - 0.5) / error) ** 2)
