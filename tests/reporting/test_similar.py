"""The page of similar cases: escaped, self-contained, usable by everybody, honest about what is not known."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from pathlib import Path

import pytest

from tests.reporting import examples
from tests.reporting.browser import LIGHT, NEEDS_BROWSER, require_drawn, shoot
from tests.reporting.markup import Page
from wetread.reporting.facts import CasePicture, FailedFile
from wetread.reporting.similar import SimilarItem, SimilarReport, render_similar
from wetread.retrieval.records import Neighbours, ReaderMark
from wetread.types import Box, Neighbour, Vote

MARK = ReaderMark(
    name="chest-pneumonia", version="0.1.0", sha256="b" * 64, embedding="e" * 64, source="chest-pneumonia"
)


def picture() -> CasePicture:
    film = examples.study(gated=False).reads[0].film_png
    return CasePicture(data=film, rows=400, columns=300)


def report(hostile: bool = False, **changes: object) -> SimilarReport:
    """One film with four cases: of each class, of none, of unknown label and without its file."""
    word = examples.HOSTILE if hostile else "kept"
    labels: tuple[tuple[str, ...] | None, ...] = (("PNEUMONIA",), ("NORMAL",), (), None)
    cases = tuple(
        Neighbour(
            rank=rank,
            path=f"train/{word}/{rank}.png",
            file=f"/films/{rank}.png",
            distance=(0.0001, 0.12, 0.4, 1.3)[rank - 1],
            labels=held,
            patient="secret-patient",
            study=None,
            split="train",
            images=rank,
            facts={"view": "AP", "subtype": word},
            box=Box(x=10, y=20, width=30, height=40) if rank == 1 else None,
        )
        for rank, held in enumerate(labels, 1)
    )
    found = Neighbours(
        image=f"{word}.png",
        index="cases",
        reader=MARK,
        level="image",
        neighbours=cases,
        vote={"PNEUMONIA": Vote(positive=1, known=3, share=0.47), "OTHER": Vote(positive=0, known=0, share=0.5)},
        left_out=2,
        warnings=(f"the patient of {word} is in cases: 2 rows left out",),
    )
    item = SimilarItem(
        film=picture(),
        neighbours=found,
        pictures=(picture(), picture(), picture(), None),
        region=Box(x=1, y=2, width=3, height=4),
        contradictions=(f"The classifier calls {word} negative; 1 of the 3 most similar cases have it.",),
    )
    fields: dict[str, object] = {
        "title": f"Cases like {word}",
        "created": examples.CREATED,
        "items": (item, item),
        "failures": (FailedFile(path=f"{word}.dcm", reason="expected an image, got another; fetch it again"),),
        "index": "cases",
        "n_cases": 4471,
        "n_patients": 2439,
        "classes": ("NORMAL", "PNEUMONIA"),
        "task": "binary",
        "where": f"label={word}",
        "wetread_version": "0.1.0",
    }
    return SimilarReport(**{**fields, **changes})


@pytest.mark.parametrize("hostile", [False, True])
def test_the_page_is_well_formed_self_contained_and_usable(hostile: bool) -> None:
    html = render_similar(report(hostile))
    page = Page(html)
    assert page.problems == []
    assert len(page.ids) == len(set(page.ids))
    assert all(address.startswith(("data:image/", "#")) for _, _, address in page.loads)
    assert page.all("script") == []
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in html
    assert not any("style" in element.attributes for element in page.elements)  # the policy would drop it
    for svg in page.all("svg"):
        assert svg.attributes.get("aria-hidden") == "true" or svg.attributes.get("aria-label")
    levels = [int(heading.tag[1]) for heading in page.all("h1", "h2", "h3", "h4")]
    assert all(after <= before + 1 for before, after in itertools.pairwise([1, *levels]))
    assert "<script>alert" not in html
    text = re.sub(r"data:image/[^\"]+|'sha256-[^']+'", "", html).lower()
    assert "safe" not in text
    assert "secret-patient" not in text


def test_the_page_says_what_a_person_needs() -> None:
    page = Page(render_similar(report()))
    cases = page.with_class("similar-cases")[0].words
    assert "1 ▲" not in cases  # signs come from the style sheet, words from the facts
    for words in ("PNEUMONIA", "NORMAL", "none of the labels", "label unknown", "train/kept/3.png", "3 images"):
        assert words in cases
    assert "distance < 0.001" in cases  # very alike, and not the same
    assert "no picture: the file is not where it was" in cases
    vote = page.with_class("vote")[0].words
    assert "PNEUMONIA 1 of 3" in vote
    assert "OTHER no neighbour's label is known" in vote
    assert "The neighbours and the classifier disagree" in page.one("main").words
    assert len(page.with_class("box")) == 4  # the part asked about and the part like it, for each of two films
    tones = [pill.attributes["class"].split()[-1] for pill in page.with_class("pill")][:4]
    assert tones == ["pill-positive", "pill-negative", "pill-negative", "pill-withheld"]


def test_a_reader_whose_audit_failed_is_marked() -> None:
    html = render_similar(report(audit_verdict="FAIL: T3"))
    assert "Audit failed: do not trust this reader." in html
    assert "Audit failed" not in render_similar(report())


@NEEDS_BROWSER
def test_the_page_is_drawn(tmp_path: Path) -> None:
    file, said = shoot(tmp_path, render_similar(report()), (1200, 1000), *LIGHT)
    assert said == []
    require_drawn(file, (1200, 1000), LIGHT)
