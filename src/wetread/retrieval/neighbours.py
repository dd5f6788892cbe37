"""Cases like this one: the answer to a query, the vote of the neighbours, and where it contradicts a classifier.

Decided here: the vote is that of k nearest patients, each weighed by its cosine, with half a case for and half a case
against (Laplace), which is the rule of the kNN reader (:class:`wetread.models.networks.KnnHead`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.datasets.columns import LABEL_PREFIX
from wetread.errors import DatasetRefused, expected
from wetread.retrieval.index import CaseIndex
from wetread.retrieval.records import Found, Hit, IndexCard, Neighbours, Query, SearchOptions
from wetread.types import Answer, Neighbour, Vote

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "disagreements",
    "known_labels",
    "neighbours_of",
    "similar_cases",
    "similar_to_all",
    "targets_of_rows",
    "vote_of",
]

_SAME = 1e-4
"""Embeddings nearer than this are of the same picture for all that the reader can tell."""
_PRIOR = 0.5
_ENOUGH = 3
"""Neighbours with known labels below which their vote contradicts nobody."""
_SHOWN = ("path", "root", "patient", "study", "split", "sha256", "images", "label")


def similar_cases(
    index: CaseIndex,
    embedding: NDArray[np.floating],
    *,
    patient: str | None = None,
    sha256: str | None = None,
    image: str = "",
    k: int = 5,
    options: SearchOptions | None = None,
) -> Neighbours:
    """Return the ``k`` cases most like one image, nearest first, with their vote.

    ``embedding``: (D,), or (Q, D) of places of the image. ``patient`` and ``sha256`` (of the file) say whose image it
    is: that patient is left out. Fewer than ``k`` are answered, with a warning, where there are no more.

    Raises:
        UsageError: ``k`` below 1, an embedding of another length or not finite, an unknown column in ``options.where``.
        DatasetRefused: an empty index, no case fits the condition, or none of another patient.
    """
    query = Query(np.atleast_2d(np.asarray(embedding, np.float32)), patient, sha256, image)
    return similar_to_all(index, [query], k, options)[0]


def similar_to_all(
    index: CaseIndex, queries: Sequence[Query], k: int = 5, options: SearchOptions | None = None
) -> list[Neighbours]:
    """Return :func:`similar_cases` of many images together."""
    asked = options or SearchOptions()
    found = index.search(queries, k, asked)
    return [neighbours_of(index, query, one, k, asked) for query, one in zip(queries, found, strict=True)]


def neighbours_of(index: CaseIndex, query: Query, found: Found, k: int, options: SearchOptions) -> Neighbours:
    """Put into words what ``index.search`` found for one query that asked for ``k`` cases.

    Raises:
        DatasetRefused: nothing was found: no case of another patient fits.
    """
    card, image = index.card, query.name or "the image"
    if not found.hits:
        cure = "widen --where, or allow the same patient with --same-patient" if options.where else "add more cases"
        raise DatasetRefused(expected("cases of other patients", f"none like {image}", cure))
    rows = index.table([hit.row for hit in found.hits])
    neighbours = tuple(_neighbour(rank, hit, rows.iloc[rank - 1], card) for rank, hit in enumerate(found.hits, 1))
    return Neighbours(
        image=query.name,
        index=card.name,
        reader=card.reader,
        level=card.level,
        neighbours=neighbours,
        vote=vote_of(card, [one.labels for one in neighbours], [1 - one.distance for one in neighbours]),
        left_out=found.left_out,
        warnings=tuple(_warnings(index, query, found, (k, options))),
    )


def _warnings(index: CaseIndex, query: Query, found: Found, asked: tuple[int, SearchOptions]) -> list[str]:
    (k, options), card, image = asked, index.card, query.name or "the image"
    texts = []
    if not options.same_patient and found.left_out:
        many = "1 row" if found.left_out == 1 else f"{found.left_out} rows"
        texts.append(f"the patient of {image} is in {card.name}: {many} left out")
    elif not options.same_patient and query.patient is None:
        texts.append(f"the patient of {image} is not known: other images of the same patient cannot be left out")
    if card.kind == "pooled" and 1 - found.hits[0].similarity < _SAME:
        texts.append(f"{image} looks the same to the reader as the nearest case, which may be a copy of it")
    if len(found.hits) < k:
        what = "patients" if options.once_per_patient else "rows"
        fitting = " that fit --where" if options.where else ""
        texts.append(f"{card.name} holds only {len(found.hits)} other {what}{fitting}, {k} were asked for")
    return texts


def _neighbour(rank: int, hit: Hit, row: pd.Series, card: IndexCard) -> Neighbour:
    path, root = str(row["path"]), str(row.get("root", ""))
    return Neighbour(
        rank=rank,
        path=path,
        file=f"{root}/{path}" if root else path,
        distance=max(0.0, 1 - hit.similarity),
        labels=known_labels(row, card),
        patient=_text(row, "patient"),
        study=_text(row, "study"),
        split=_text(row, "split"),
        images=int(row.get("images", 1)),
        facts=_facts(row),
        place=hit.place if card.kind == "local" else None,
    )


def _facts(row: pd.Series) -> dict[str, str]:
    """What else is known of a case, as text."""
    hidden = {*_SHOWN, "series", "width", "height", "bits", "licence"}
    shown = {str(name): value for name, value in row.dropna().items()}
    return {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in shown.items()
        if name not in hidden and not name.startswith(LABEL_PREFIX)
    }


def known_labels(row: pd.Series, card: IndexCard) -> tuple[str, ...] | None:
    """The labels of a row; None where they are unknown, empty where it has none of them."""
    if card.task != "multilabel":
        label = _text(row, "label")
        return None if label is None else (label,)
    known = {name: row.get(f"{LABEL_PREFIX}{name}") for name in card.classes}
    given = {name: value for name, value in known.items() if value is not None and value == value}
    return tuple(name for name, value in given.items() if value == 1) if given else None


def targets_of_rows(card: IndexCard, rows: pd.DataFrame) -> NDArray[np.float64]:
    """Labels of rows as numbers (N, classes): 1, 0, or NaN where unknown."""
    if card.task == "multilabel":
        columns = [rows[f"{LABEL_PREFIX}{name}"] for name in card.classes]
        return np.stack([column.to_numpy(np.float64, na_value=np.nan) for column in columns], axis=1)
    if not card.classes or "label" not in rows:
        return np.full((len(rows), len(card.classes)), np.nan)
    truth = rows["label"]
    targets: NDArray[np.float64] = np.stack([np.asarray(truth == name, np.float64) for name in card.classes], axis=1)
    targets[truth.isna().to_numpy(np.bool_)] = np.nan
    return targets


def vote_of(
    card: IndexCard, labels: Sequence[tuple[str, ...] | None], similarities: Sequence[float]
) -> dict[str, Vote]:
    """What neighbours with ``labels`` say of each label of the index: of the positive one alone in a binary task."""
    known = [(held, max(0.0, like)) for held, like in zip(labels, similarities, strict=True) if held is not None]
    total = sum(like for _, like in known)
    votes = {}
    for name in card.classes[1:] if card.task == "binary" else card.classes:
        with_it = [like for held, like in known if name in held]
        share = (sum(with_it) + _PRIOR) / (total + 2 * _PRIOR)
        votes[name] = Vote(positive=len(with_it), known=len(known), share=share)
    return votes


def disagreements(neighbours: Neighbours, answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """Say in words where the neighbours' vote contradicts a classifier's ``answers`` by label; empty if nowhere.

    A label that the index does not know, or of which fewer than three neighbours are known, contradicts nothing.
    """
    sentences = []
    for label, answer in answers.items():
        vote = neighbours.vote.get(label)
        if vote is None or vote.known < _ENOUGH or (vote.share >= 0.5) == (answer == "positive"):
            continue
        sentences.append(
            f"The classifier calls {label} {answer}; {vote.positive} of the {vote.known} most similar cases have it."
        )
    return tuple(sentences)


def _text(row: pd.Series, column: str) -> str | None:
    value = row.get(column)
    return None if value is None or value != value else str(value)
