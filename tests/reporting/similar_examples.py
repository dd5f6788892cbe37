"""Past cases beside a film, and whole studies: facts for their pages, hostile where a file could bring it."""

from __future__ import annotations

from tests.reporting import examples
from wetread.reporting.facts import CasePicture, ReadWithPictures, StudyReport
from wetread.types import Neighbour, SimilarCases, Vote


def similar_cases(*, hostile: bool = False) -> SimilarCases:
    """Five cases of which one has no label and one no film any more; they contradict the classifier."""
    word = examples.HOSTILE if hostile else "pneumonia"
    held: tuple[tuple[str, ...] | None, ...] = ((word,), (word,), (word,), ("normal",), None)
    cases = tuple(
        Neighbour(
            rank=rank,
            path=f"train/{word if hostile else 'ward'}/PHANTOM-{40 + rank:04d}.png",
            file=f"/films/PHANTOM-{40 + rank:04d}.png",
            distance=(0.062, 0.071, 0.118, 0.143, 0.15)[rank - 1],
            labels=labels,
            patient="secret-patient",
            study=None,
            split="train",
            facts={"view": "AP"},
        )
        for rank, labels in enumerate(held, 1)
    )
    return SimilarCases(
        index="chest-cases",
        task="binary",
        classes=("normal", word),
        cases=cases,
        vote={word: Vote(positive=3, known=4, share=0.71)},
        contradictions=(f"The classifier calls {word} negative; 3 of the 4 most similar cases have it.",),
        left_out=2,
        warnings=("the patient of IM0001.dcm is in chest-cases: 2 rows left out",),
    )


def study_with_cases(*, hostile: bool = False) -> StudyReport:
    """A film that the classifier calls negative, between cases that are positive."""
    whole = examples.study(hostile=hostile, gated=False)
    first = whole.reads[0]
    similar = similar_cases(hostile=hostile)
    labels = (examples.answer("pneumonia", 0.312), first.read.labels[1])
    read = first.read.model_copy(update={"labels": labels, "similar": similar, "warnings": similar.contradictions})
    pictures = [
        CasePicture(data=examples.png(examples.film(seed, sick=seed != 14)[0], 200), rows=512, columns=512)
        for seed in range(11, 15)
    ]
    shown = first.model_copy(update={"read": read, "cases": (*pictures, None)})
    return whole.model_copy(update={"reads": (ReadWithPictures.model_validate(shown.model_dump()),)})
