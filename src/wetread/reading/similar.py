"""Past cases beside a reading: the cases most like an image, their vote, and whether it contradicts the classifier.

The embeddings are those of the pass that gave the probability, so an index costs one search and no second look at
the pixels. An image that the gate refused has no similar cases: what a reader was not built for, it cannot compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wetread.errors import UsageError, expected
from wetread.retrieval.index import CaseIndex
from wetread.retrieval.neighbours import disagreements, neighbours_of
from wetread.retrieval.records import IndexCard, Query, SearchOptions
from wetread.types import Answer, ImageFacts, LabelReading, SimilarCases

if TYPE_CHECKING:
    from wetread.models.predict import Forward, Reader

__all__ = [
    "CaseSearch",
    "answers_of",
    "cases_in",
    "cases_like",
    "refuse_foreign_index",
    "refuse_other_level",
    "study_vector",
    "vectors_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class CaseSearch:
    """Which past cases stand beside an image: ``k`` of ``index``, of other patients unless ``options`` say otherwise.

    ``patient``: whose images are read; None: as each file says.
    """

    index: CaseIndex
    k: int = 5
    options: SearchOptions = field(default_factory=SearchOptions)
    patient: str | None = None


def cases_in(
    location: str, k: int = 5, *, where: str | None = None, same_patient: bool = False, patient: str | None = None
) -> CaseSearch:
    """Open the index in a folder or a database to be asked beside each reading; ``where`` as ``--where`` has it.

    Raises:
        DatasetRefused: no index there, or a damaged one.
        UsageError: ``where`` is no condition.
        PeerUnreachable: the database does not answer.
    """
    from wetread.retrieval.locate import open_index
    from wetread.retrieval.where import parse_where

    condition = None if where is None else parse_where(where)
    return CaseSearch(open_index(location), k, SearchOptions(condition, same_patient), patient)


def refuse_foreign_index(reader: Reader, search: CaseSearch) -> None:
    """Refuse an index that another reader made.

    Raises:
        DatasetRefused: names the hashes of both.
    """
    from wetread.retrieval.embed import mark_of
    from wetread.retrieval.write import refuse_other_embeddings

    refuse_other_embeddings(search.index.card, mark_of(reader))


def refuse_other_level(search: CaseSearch) -> None:
    """Refuse an index of single images for a study as a whole.

    Raises:
        UsageError: names the flag that makes one of studies.
    """
    if search.index.card.level != "study":
        cure = "build one with --level study"
        raise UsageError(expected("an index of studies for a reader of studies", "one of single images", cure))


def cases_like(
    search: CaseSearch, vectors: NDArray[np.floating], facts: ImageFacts, labels: Sequence[LabelReading]
) -> tuple[SimilarCases | None, tuple[str, ...]]:
    """Return the cases like an image with ``vectors`` (Q, D), and the warnings that belong to its reading.

    None with a warning where the index holds no case of another patient that fits.

    Raises:
        UsageError: ``k`` below 1, embeddings of another length, a condition on an unknown column.
        DatasetRefused: an empty index, or no case fits the condition.
    """
    query = Query(np.asarray(vectors, np.float32), search.patient or facts.patient, facts.sha256, facts.name)
    (found,) = search.index.search([query], search.k, search.options)
    card = search.index.card
    if not found.hits:
        return None, (f"No similar cases: {card.name} has none of another patient that fits.",)
    near = neighbours_of(search.index, query, found, search.k, search.options)
    against = disagreements(near, answers_of(labels))
    return (
        SimilarCases(
            index=card.name,
            task=card.task,
            classes=card.classes,
            cases=near.neighbours,
            vote=near.vote,
            contradictions=against,
            left_out=near.left_out,
            warnings=near.warnings,
        ),
        against,
    )


def answers_of(labels: Sequence[LabelReading]) -> dict[str, Answer]:
    """The decisions that were made; withheld ones contradict nothing."""
    found: dict[str, Answer] = {}
    for reading in labels:
        if reading.decision != "withheld":
            found[reading.label] = reading.decision
    return found


def study_vector(reader: Reader, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The embedding (1, D) of a study from those of its images (n, D), as an index of studies keeps them."""
    from wetread.retrieval.embed import study_pooling

    return study_pooling(reader)(vectors)[None]


def vectors_of(card: IndexCard, forward: Forward, number: int) -> NDArray[np.float32]:
    """What an index with ``card`` keeps of image ``number`` of a batch: one vector (1, D), or one for each place."""
    if card.kind == "pooled":
        return np.asarray(forward.embeddings[number : number + 1].numpy(), np.float32)
    maps = forward.features[0][number]  # (D, h, w)
    return np.asarray(maps.flatten(1).T.contiguous().numpy(), np.float32)
