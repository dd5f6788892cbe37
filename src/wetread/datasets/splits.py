"""Splits that keep a patient whole, and the check that no split leaks.

Images belong together when they share a patient, a study or their content; such a group is never
divided. Groups are dealt out by scikit-learn's ``StratifiedGroupKFold``, so that every split has
about the same share of every class. A split that was given with the data stays as it is.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.columns import LABEL_PREFIX, SPLITS, label_columns
from wetread.datasets.manifest import DatasetMeta, Manifest, SplitMeta
from wetread.errors import SplitRefused, UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "assert_no_leak",
    "assignment_sha256",
    "groups_of",
    "leaks",
    "make_folds",
    "make_split",
    "strata_of",
    "stratified_folds",
]

logger = logging.getLogger(__name__)

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
DEFAULT_WITH_TEST = {"train": 0.85, "val": 0.15}
"""Shares of the images that are being divided, where a test split was given with the data."""
_MAX_PARTS = 20
"""Groups are dealt into at most this many parts, so a share is met to about 1/40."""
_GOOD_SHARE = 0.01
"""A share missed by this little is good; fewer parts are then faster and easier to balance."""
_MISSED_SHARE = 0.1
"""A share missed by more is said: what belongs together was too large to meet it."""
_LINKS = {"patient": "patients", "study": "studies", "sha256": "identical files"}
UNLABELLED = "(unlabelled)"


def make_split(
    manifest: Manifest,
    fractions: dict[str, float] | None = None,
    *,
    seed: int = 0,
    reset: bool = False,
    linked: Sequence[tuple[str, ...]] | None = None,
) -> Manifest:
    """Divide the images into train, val and test; return the manifest with the split stored.

    ``fractions`` are shares of the images that are divided, and sum to 1. Val and test images that
    came with the data stay where they are unless ``reset``; what is divided is the rest. ``linked`` are paths
    that belong together for another reason, e.g. near duplicates. Raises
    :class:`SplitRefused` where the patients do not suffice, :class:`UsageError` for fractions
    that make no sense.
    """
    table = manifest.table.drop(columns="fold", errors="ignore")
    given = [] if reset else _given(manifest)
    fixed = table["split"].isin(given)
    shares = _checked_fractions(fractions, given)
    groups = groups_of(table, linked)
    _refuse_torn_groups(groups, fixed, table["split"])
    rest, codes = table[~fixed], groups[~fixed.to_numpy()]
    _refuse_single_class(rest)
    patients = _patients_per_class(rest, manifest.meta.classes, codes)
    _refuse_few(patients, codes, len(shares), "splits")
    chosen, parts = _divide(rest, manifest.meta, codes, shares, seed)
    _warn_of_missed_shares(chosen, shares, codes)
    split = table["split"].where(fixed)
    split[~fixed] = chosen
    method = f"StratifiedGroupKFold({parts}) over patients, studies and identical images"
    if given:
        method += f"; given {', '.join(given)} kept"
    meta = SplitMeta(method=method, seed=seed, sha256="", fractions=shares, given=tuple(given))
    return _stored(manifest, table.assign(split=split), meta, linked)


def _warn_of_missed_shares(chosen: NDArray[np.str_], shares: dict[str, float], codes: NDArray[np.int64]) -> None:
    """Say which shares came out far from what was asked, and the largest group as the likely cause."""
    largest = int(np.unique(codes, return_counts=True)[1].max())
    for name, share in shares.items():
        got = float((chosen == name).mean())
        if abs(got - share) > _MISSED_SHARE:
            wanted = f"about {share:.0%} of {len(chosen)} images in {name}"
            cure = f"{largest} images of one patient, or linked as near duplicates, stay together: see dataset check"
            logger.warning(expected(wanted, f"{got:.0%}", cure))


def _divide(
    rest: pd.DataFrame, meta: DatasetMeta, codes: NDArray[np.int64], shares: dict[str, float], seed: int
) -> tuple[NDArray[np.str_], int]:
    """Split name of each image, from the number of parts that meets the shares best.

    Fewer patients of a class than parts can leave a split without that class: then the next best
    number of parts is tried.
    """
    strata = strata_of(rest, meta.task)
    for parts, counts in _part_plans(shares, len(np.unique(codes))):
        names = np.repeat(list(counts), list(counts.values()))
        chosen = names[stratified_folds(strata, codes, parts, seed)]
        present = [_patients_per_class(rest[chosen == n], meta.classes, codes[chosen == n]) for n in shares]
        if all(all(p.values()) for p in present):
            return chosen, parts
    raise SplitRefused(
        expected(
            f"a division with every class in {', '.join(shares)}",
            "none with this seed",
            "take another --seed, larger shares, or merge rare classes",
        )
    )


def make_folds(
    manifest: Manifest,
    k: int,
    *,
    seed: int = 0,
    linked: Sequence[tuple[str, ...]] | None = None,
) -> Manifest:
    """Deal everything but test images into ``k`` folds: column ``fold``, 0 to k-1.

    The split of those images becomes train. Raises :class:`SplitRefused` for a class with fewer
    than ``k`` patients.
    """
    if k < 2:
        raise UsageError(expected("at least 2 folds", str(k), "use --folds 5"))
    table = manifest.table.drop(columns="fold", errors="ignore")
    test = table["split"].isin(["test"])
    groups = groups_of(table, linked)
    _refuse_torn_groups(groups, test, table["split"])
    rest, codes = table[~test], groups[~test.to_numpy()]
    _refuse_single_class(rest)
    _refuse_few(_patients_per_class(rest, manifest.meta.classes, codes), codes, k, "folds")
    fold = table.assign(fold=-1)["fold"].astype("Int64")
    fold[~test] = stratified_folds(strata_of(rest, manifest.meta.task), codes, k, seed)
    done = table.assign(split=table["split"].where(test, "train"), fold=fold.mask(test))
    method = f"StratifiedGroupKFold({k}) over patients, studies and identical images"
    meta = SplitMeta(method=method, seed=seed, sha256="", folds=k, given=tuple(_given(manifest)))
    return _stored(manifest, done, meta, linked)


def stratified_folds(strata: NDArray[np.str_], groups: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """Fold number (0 to k-1) of each image; images of one group share a fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    names, counts = np.unique(strata, return_counts=True)
    rare = np.isin(strata, names[counts < k])  # too few to balance: they go with the commonest
    balanced = np.where(rare, names[counts.argmax()], strata)
    fold = np.full(len(strata), -1, dtype=np.int64)
    folds = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    for number, (_, chosen) in enumerate(folds.split(balanced, balanced, groups)):
        fold[chosen] = number
    return fold


def groups_of(table: pd.DataFrame, linked: Sequence[tuple[str, ...]] | None = None) -> NDArray[np.int64]:
    """Group number of each image: connected by patient, study, file content or ``linked`` paths."""
    parent = list(range(len(table)))
    for column in _LINKS:
        if column in table.columns:
            _join_equal(parent, table[column])
    row_of = {path: i for i, path in enumerate(table["path"])}
    for together in linked or []:
        rows = [row_of[p] for p in together if p in row_of]
        for other in rows[1:]:
            _join(parent, rows[0], other)
    return np.array([_find(parent, i) for i in range(len(table))], dtype=np.int64)


def strata_of(table: pd.DataFrame, task: str) -> NDArray[np.str_]:
    """The class that each image counts for when splits are balanced.

    Multi-label images count for the rarest of their positive labels, so that rare findings are
    the ones that get spread. Unlabelled images form a stratum of their own.
    """
    if task != "multilabel":
        return table["label"].fillna(UNLABELLED).to_numpy(dtype=str)
    columns = label_columns(table)
    rare_first = sorted(columns, key=lambda c: (int(np.sum(table[c].to_numpy() == 1)), c))
    strata = np.full(len(table), "(no finding)", dtype=object)
    strata[table[columns].isna().all(axis=1).to_numpy()] = UNLABELLED
    for column in reversed(rare_first):
        strata[(table[column] == 1).to_numpy()] = column
    return strata.astype(str)


def leaks(table: pd.DataFrame) -> dict[str, list[str]]:
    """Values of patient, study and sha256 that occur in more than one split, by column."""
    split = table["split"]
    found = {}
    for column in _LINKS:
        known = table[column].notna() & split.notna()
        per_value = split[known].groupby(table[column][known]).nunique()
        found[column] = sorted(str(v) for v in per_value.index[per_value > 1])
    return {column: values for column, values in found.items() if values}


def assert_no_leak(manifest: Manifest) -> None:
    """Raise :class:`SplitRefused`, with counts, where the stored split divides what belongs together."""
    found = leaks(manifest.table)
    if found:
        counts = ", ".join(f"{len(values)} {_LINKS[column]}" for column, values in found.items())
        raise SplitRefused(
            expected(
                "every patient, study and image in one split",
                f"{counts} in more than one",
                "make a split that keeps them whole: wetread dataset split DATASET --reset",
            )
        )
    stored = manifest.meta.split
    if stored is not None and stored.sha256 != assignment_sha256(manifest.table):
        raise SplitRefused(
            expected(
                "the split that dataset.toml recorded",
                "another assignment in the table",
                "run wetread dataset split again",
            )
        )


def assignment_sha256(table: pd.DataFrame) -> str:
    """sha256 of the sorted lines ``path<TAB>split<TAB>fold``; empty where unknown."""
    fold = table["fold"] if "fold" in table.columns else [None] * len(table)
    lines = sorted(
        f"{path}\t{_blank(split)}\t{_blank(number)}"
        for path, split, number in zip(table["path"], table["split"], fold, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _blank(value: object) -> str:
    import pandas as pd

    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def _given(manifest: Manifest) -> list[str]:
    """Which of val and test came with the data, and not from an earlier call of this module."""
    present = {str(v) for v in manifest.table["split"].dropna().unique()}
    made = manifest.meta.split
    known = present if made is None else set(made.given)
    return sorted(present & known & {"val", "test"})


def _checked_fractions(asked: dict[str, float] | None, given: list[str]) -> dict[str, float]:
    if given == ["test", "val"]:
        raise SplitRefused(
            expected(
                "a val or test split that is still to be made",
                "both given with the data",
                "keep them, or divide anew with --reset",
            )
        )
    shares = asked or (DEFAULT_WITH_TEST if given == ["test"] else DEFAULT_FRACTIONS)
    if asked is None and given == ["val"]:
        shares = {"train": 0.85, "test": 0.15}
    shares = {name: shares[name] for name in SPLITS if shares.get(name, 0) != 0}
    if any(not 0 < share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(
            expected(
                "shares between 0 and 1 that sum to 1",
                ", ".join(f"{k} {v:g}" for k, v in shares.items()) or "none",
                "e.g. --train 0.7 --val 0.15 --test 0.15",
            )
        )
    clash = [name for name in given if name in shares]
    if clash:
        raise UsageError(
            expected(
                f"no share for {clash[0]}, which was given with the data",
                f"{shares[clash[0]]:g}",
                f"leave --{clash[0]} out, or divide anew with --reset",
            )
        )
    return shares


def _part_plans(shares: dict[str, float], most: int) -> list[tuple[int, dict[str, int]]]:
    """Numbers of equal parts to deal into, with how many each split gets; the best fit first."""
    largest = max(shares, key=lambda name: shares[name])
    plans = []
    for parts in range(max(2, len(shares)), min(_MAX_PARTS, most) + 1):
        counts = {name: max(1, round(share * parts)) for name, share in shares.items()}
        counts[largest] += parts - sum(counts.values())
        if counts[largest] > 0:
            error = max(abs(counts[n] / parts - shares[n]) for n in shares)
            plans.append((max(round(error, 9), _GOOD_SHARE), parts, counts))
    return [(parts, counts) for _, parts, counts in sorted(plans, key=lambda p: p[:2])]


def _patients_per_class(table: pd.DataFrame, classes: tuple[str, ...], groups: NDArray[np.int64]) -> dict[str, int]:
    """Groups that have each class at least once; unknown labels count for none."""
    if label_columns(table):
        has = {c: table[LABEL_PREFIX + c] == 1 for c in classes}
    else:
        has = {c: table["label"] == c for c in classes}
    return {c: len(np.unique(groups[rows.to_numpy(dtype=bool)])) for c, rows in has.items()}


def _refuse_single_class(table: pd.DataFrame) -> None:
    present = table["label"].dropna().unique()
    if not label_columns(table) and len(present) == 1:
        raise SplitRefused(
            expected(
                "at least two classes to divide",
                f"only '{present[0]}'",
                "add images of another class",
            )
        )


def _refuse_few(patients: dict[str, int], groups: NDArray[np.int64], needed: int, what: str) -> None:
    few = {name: n for name, n in patients.items() if n < needed}
    total = len(np.unique(groups))
    if few or total < needed:
        got = ", ".join(f"{n} with '{name}'" for name, n in few.items()) or f"{total} in all"
        raise SplitRefused(
            expected(
                f"at least {needed} patients of every class for {needed} {what}",
                got,
                f"ask for fewer {what}, merge rare classes or set their labels to unknown",
            )
        )


def _refuse_torn_groups(groups: NDArray[np.int64], fixed: pd.Series, split: pd.Series) -> None:
    """Refuse where given splits already divide what belongs together."""
    import pandas as pd

    side = split.where(fixed, "the images to divide")
    torn = side.groupby(pd.Series(groups, index=side.index)).nunique()
    n = int((torn > 1).sum())
    if n:
        raise SplitRefused(
            expected(
                "given splits that keep patients, studies and identical images whole",
                f"{n} groups that they divide",
                "see wetread dataset check, or divide anew with --reset",
            )
        )


def _stored(
    manifest: Manifest,
    table: pd.DataFrame,
    meta: SplitMeta,
    linked: Sequence[tuple[str, ...]] | None,
) -> Manifest:
    method = meta.method + (" and near duplicates" if linked else "")
    meta = meta.model_copy(update={"method": method, "sha256": assignment_sha256(table)})
    done = manifest.with_table(table, split=meta)
    assert_no_leak(done)
    return done


def _join_equal(parent: list[int], column: pd.Series) -> None:
    first: dict[str, int] = {}
    for row, value in enumerate(column):
        if isinstance(value, str):
            _join(parent, first.setdefault(value, row), row)


def _join(parent: list[int], a: int, b: int) -> None:
    parent[_find(parent, b)] = _find(parent, a)


def _find(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
