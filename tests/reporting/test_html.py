"""Every page: escaped, self-contained, well formed, usable without sight or mouse, honest about gates."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Callable
from functools import cache

import pytest

from tests.reporting import cardiac_examples, examples, similar_examples, study_examples
from tests.reporting.markup import Page
from wetread.reporting.html import (
    render_check,
    render_evaluation,
    render_index,
    render_organs,
    render_overlap,
    render_read,
    render_training,
)
from wetread.types import Read

FAIL = "FAIL: T3, the label can be told without the organ"


def _evaluation(verdict: str = "not audited") -> str:
    result, svgs, comparison = examples.evaluation()
    return render_evaluation(result, svgs, comparison=comparison, audit_verdict=verdict)


def _hostile_evaluation() -> str:
    result, svgs, comparison = examples.evaluation()
    facts = result.facts.model_copy(update={"reader": examples.HOSTILE, "source": examples.HOSTILE})
    label = result.labels[0].model_copy(update={"label": examples.HOSTILE})
    hostile = result.model_copy(
        update={
            "facts": facts,
            "labels": (label,),
            "warnings": (examples.HOSTILE,),
            "provenance": {examples.HOSTILE: "x"},
        }
    )
    named = comparison.model_copy(update={"name_a": examples.HOSTILE})
    return render_evaluation(hostile, svgs | {examples.HOSTILE: "<svg><script>1</script></svg>"}, comparison=named)


PAGES: dict[str, Callable[[], str]] = {
    "read": lambda: render_read(examples.study()),
    "read-failed": lambda: render_read(examples.study(verdict=FAIL)),
    "read-many": lambda: render_read(examples.many_labels()),
    "read-hostile": lambda: render_read(examples.study(hostile=True)),
    "read-cardiac": lambda: render_read(cardiac_examples.compared_study()),
    "read-cardiac-disagrees": lambda: render_read(cardiac_examples.compared_study(cardiac_examples.measured(0.04))),
    "read-cardiac-ap": lambda: render_read(cardiac_examples.compared_study(cardiac_examples.measured(view="AP"))),
    "read-cardiac-hostile": lambda: render_read(cardiac_examples.hostile_study()),
    "index": lambda: render_index(examples.worklist()),
    "read-similar": lambda: render_read(similar_examples.study_with_cases()),
    "read-similar-hostile": lambda: render_read(similar_examples.study_with_cases(hostile=True)),
    "study": study_examples.study_page,
    "study-hostile": lambda: study_examples.study_page(hostile=True),
    "evaluation-study": study_examples.evaluation_page,
    "index-hostile": lambda: render_index(examples.worklist(hostile=True)),
    "index-empty": lambda: render_index(examples.worklist().model_copy(update={"entries": (), "failures": ()})),
    "check": lambda: render_check(examples.check()),
    "check-hostile": lambda: render_check(examples.check(hostile=True)),
    "check-clean": lambda: render_check(examples.check(clean=True)),
    "evaluation": _evaluation,
    "evaluation-hostile": _hostile_evaluation,
    "evaluation-multilabel": lambda: render_evaluation(*examples.multilabel_evaluation()),
    "organs": lambda: render_organs(examples.organs()),
    "organs-hostile": lambda: render_organs(examples.organs(hostile=True)),
    "organs-empty": lambda: render_organs(examples.organs().model_copy(update={"items": (), "failures": ()})),
    "overlap": lambda: render_overlap(examples.overlap()),
    "overlap-hostile": lambda: render_overlap(examples.overlap(hostile=True)),
    "training": lambda: render_training(examples.training()),
    "training-hostile": lambda: render_training(examples.training(hostile=True)),
}


@cache
def html_of(name: str) -> str:
    return PAGES[name]()


@cache
def page_of(name: str) -> Page:
    return Page(html_of(name))


every_page = pytest.mark.parametrize("name", PAGES)


@every_page
def test_page_is_well_formed(name: str) -> None:
    page = page_of(name)
    assert page.problems == []
    assert html_of(name).lstrip().startswith("<!doctype html>")
    assert len(page.ids) == len(set(page.ids))
    for element in page.elements:
        for key in ("for", "aria-labelledby"):
            if key in element.attributes:
                assert element.attributes[key] in page.ids
        href = element.attributes.get("href", "")
        assert not href.startswith("#") or href[1:] in page.ids


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ("<div><p>a</div>", "</div> closes <p>"),
        ("<div>", "<div> is never closed"),
        ("<p><ul></ul></p>", "<ul> inside ['p']"),
        ('<img alt="" alt="">', "<img> has an attribute twice: ['alt', 'alt']"),
    ],
)
def test_the_checker_sees_bad_markup(html: str, problem: str) -> None:
    assert problem in Page(html).problems


@pytest.mark.parametrize("name", [name for name in PAGES if name.endswith("hostile")])
def test_what_a_file_says_stays_text(name: str) -> None:
    page = page_of(name)
    assert len(page.all("script")) <= 1
    for element in page.elements:
        assert not any(key.startswith("on") for key in element.attributes), element
        assert element.attributes.get("src", "data:").startswith("data:")
    assert "<script>alert" not in html_of(name)
    assert any("<script>alert(1)</script>\"'><img" in "".join(e.text) for e in page.elements)  # shown as it is


@every_page
def test_page_loads_nothing(name: str) -> None:
    worklist_links = {entry.href for entry in examples.worklist().entries} if name.startswith("index") else set()
    quoted = {link.replace(" ", "%20").replace("&", "%26") for link in worklist_links}
    for tag, attribute, address in page_of(name).loads:
        assert address.startswith(("data:image/", "#")) or (tag == "a" and address in quoted), (tag, attribute)
    css = page_of(name).one("style").words
    assert not re.search(r"url\(|@import|https?:", css)


@every_page
def test_policy_allows_our_style_and_script_alone(name: str) -> None:
    page = page_of(name)
    (policy,) = [m.attributes["content"] for m in page.all("meta") if "http-equiv" in m.attributes]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    html = html_of(name)
    for tag in ("style", "script"):
        bodies = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        assert rules[f"{tag}-src"] == (f"'sha256-{hashes[0]}'" if hashes else "'none'")
        assert len(bodies) <= 1
    assert not any("style" in element.attributes for element in page.elements)  # the policy would drop it


@every_page
def test_page_can_be_used_by_everybody(name: str) -> None:
    page = page_of(name)
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").words
    for landmark in ("header", "main", "footer", "h1"):
        page.one(landmark)
    assert all("alt" in image.attributes for image in page.all("img"))
    for svg in page.all("svg"):
        assert svg.attributes.get("aria-hidden") == "true" or (
            svg.attributes.get("role") == "img" and svg.attributes.get("aria-label")
        )
    labelled = {label.attributes["for"] for label in page.all("label")}
    assert all(box.attributes["id"] in labelled for box in page.all("input"))
    levels = [int(h.tag[1]) for h in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(cell.attributes.get("scope") in {"col", "row", "rowgroup"} for cell in page.all("th"))
    assert len(page.all("thead")) == len(page.all("table"))
    assert all(a.words for a in page.all("a"))


def _without_blobs(html: str) -> str:
    return re.sub(r"data:image/[^\"]+|'sha256-[^']+'", "", html)


@every_page
def test_the_two_words_never_occur_and_the_disclaimer_always_does(name: str) -> None:
    text = _without_blobs(html_of(name)).lower()
    assert "safe" not in text
    assert "cleared" not in text
    (banner,) = [b for b in page_of(name).with_class("banner") if "banner-fail" not in b.attributes["class"]]
    assert banner.words == "Research use only. Not a diagnosis."


def _articles(html: str) -> list[str]:
    return re.findall(r"<article.*?</article>", html, re.DOTALL)


def test_gated_image_shows_no_probability() -> None:
    answered, gated = _articles(html_of("read"))
    assert "No reading" in gated
    assert "The header says body part HAND" in gated
    for sign in ("%", "probability", 'class="bar', 'class="heat', "pill-positive", "pill-negative", "pneumonia<"):
        assert sign in answered.replace("pneumonia</h3>", "pneumonia<"), f"{sign} would prove nothing"
        assert sign not in _without_blobs(gated)


def test_read_page_says_what_a_reader_needs() -> None:
    text = page_of("read").one("main").words.replace("\N{NARROW NO-BREAK SPACE}", " ")
    sick = examples.sick_read().read
    for said in (
        "87 % calibrated probability",
        "Operating point sensitivity-95: positive at 43 % or more",
        "0.953 (0.936–0.966) 776",
        "0.912 (0.876–0.938) 268",
        "Grad-CAM of layer conv_head",
        "voi window centre 2047.5, width 4096, function LINEAR",
        sick.model.sha256,
        sick.image.sha256,
        "not audited",
        "distance 11.94, limit 24.8",
        "forward 38 ms",
        *examples.READER.limits,
        *examples.READER.not_for,
    ):
        assert said in text, said


def test_heat_map_is_off_at_first_and_boxes_are_in_image_pixels() -> None:
    page = page_of("read")
    radios = [e for e in page.all("input") if e.attributes["type"] == "radio"]
    assert [e.attributes["id"] for e in radios if "checked" in e.attributes] == ["heat-1-off"]
    assert not any("checked" in e.attributes for e in page.all("input") if e.attributes["type"] == "checkbox")
    assert ".heat { visibility: hidden;" in html_of("read")
    (box,) = page.with_class("box")
    truth = examples.film()[1]
    assert truth is not None
    assert [float(box.attributes[k]) for k in ("x", "y", "width", "height")] == [
        truth.x,
        truth.y,
        truth.width,
        truth.height,
    ]


def test_every_heat_map_has_its_switch_and_its_rule() -> None:
    page, html = page_of("read"), html_of("read")
    for i, label in enumerate(("pneumonia", "effusion"), start=1):
        assert page.with_class(f"heat-{i}")
        switch = page.with_class(f"heat-on-{i}")[0].attributes["id"]
        assert [e.words for e in page.all("label") if e.attributes["for"] == switch] == [label]
        assert f".viewer:has(.heat-on-{i}:checked) .heat-{i} {{ visibility: visible; }}" in html


def _agreement_of(name: str) -> str:
    """The words of the section that sets the ratio beside the classifier."""
    page = html_of(name).split('aria-labelledby="image-1-agreement">')[1].split("</section>")[0]
    return " ".join(e.words for e in Page(f"<section>{page}</section>").elements if e.tag == "section")


def test_ratio_classifier_and_agreement_stand_together() -> None:
    words = _agreement_of("read-cardiac")
    for text in ("Cardiothoracic ratio agrees", "0.57 limit 0.50", "Ratio says positive", "Classifier says positive"):
        assert text in words
    assert "The cardiothoracic ratio is 0.57, above the limit of 0.50, and the classifier finds" in words
    assert "Limit of 0.50: Danzer 1919" in words
    assert "Sizes of the organs" in html_of("read-cardiac")


def test_disagreement_is_said_and_warned_of() -> None:
    words = _agreement_of("read-cardiac-disagrees")
    for text in ("Cardiothoracic ratio disagrees", "Ratio says positive", "Classifier says negative"):
        assert text in words
    warning = "The cardiothoracic ratio and the classifier disagree on cardiomegaly: look at the film."
    assert warning in html_of("read-cardiac-disagrees")


@pytest.mark.parametrize(("probability", "before"), [(0.91, "answer-positive"), (0.04, "others")])
def test_the_ratio_stands_behind_its_own_label(probability: float, before: str) -> None:
    one = cardiac_examples.measured(probability)
    more = (*one.read.labels, examples.answer("nodule", 0.9), examples.answer("effusion", 0.01))
    html = render_read(
        cardiac_examples.compared_study(one.model_copy(update={"read": one.read.model_copy(update={"labels": more})}))
    )
    sections = [x for x in Page(html).all("section") if {"answer", "others"} & set(x.attributes["class"].split())]
    place = [x.attributes["aria-labelledby"] for x in sections].index("image-1-agreement")
    assert before in sections[place - 1].attributes["class"].split()
    assert "cardiomegaly" in sections[place - 1].words


def test_an_ap_film_shows_the_ratio_and_compares_nothing() -> None:
    words = _agreement_of("read-cardiac-ap")
    for text in ("Cardiothoracic ratio not compared", "0.57 limit 0.50", "Ratio says nothing", "states the view AP"):
        assert text in words


def test_widths_lie_where_they_were_measured() -> None:
    page = page_of("read-cardiac")
    ratio = cardiac_examples.measured().read.measures[-1]
    lines = [x.attributes["d"] for x in page.all("path") if "width-line" in x.attributes.get("class", "")]
    assert len(lines) == 4  # heart and chest, on the film and beside the ratio
    for span, drawn in zip(ratio.spans, lines[:2], strict=True):
        assert f"M{span.left} {span.y}H{span.right}" in drawn
    (switch,) = [x for x in page.all("input") if x.attributes["id"] == "widths-1"]
    assert "checked" not in switch.attributes


def test_without_a_ratio_nothing_is_drawn() -> None:
    one = cardiac_examples.measured()
    bare = tuple(x.model_copy(update={"value": None, "spans": (), "reason": "no heart"}) for x in one.read.measures)
    compared = one.read.agreement
    assert compared is not None
    empty = compared.model_copy(update={"value": None, "measure_says": None, "agree": None, "sentence": "No ratio."})
    read = one.read.model_copy(update={"measures": bare, "agreement": empty})
    html = render_read(cardiac_examples.compared_study(one.model_copy(update={"read": read})))
    assert Page(html).problems == []
    assert 'class="width-line' not in html
    assert "No ratio." in html
    assert "Not measured, because no heart: area, width, cardiothoracic ratio of heart; area, height" in html


def test_missing_heat_map_is_said() -> None:
    study = examples.study(gated=False)
    item = study.reads[0]
    evidence = item.read.labels[0].evidence
    assert evidence is not None
    missing = evidence.model_copy(update={"status": "the map is flat: the reader looked nowhere", "boxes": ()})
    label = item.read.labels[0].model_copy(update={"evidence": missing})
    read = item.read.model_copy(update={"labels": (label,)})
    page = Page(
        render_read(study.model_copy(update={"reads": (item.model_copy(update={"read": read, "heatmaps": {}}),)}))
    )
    assert "No heat map: the map is flat: the reader looked nowhere" in page.one("main").words
    assert page.with_class("heat") == []


def test_many_labels_keep_positives_large_and_gather_negatives() -> None:
    page = page_of("read-many")
    headings = [h.words for h in page.all("h3")]
    assert headings[:3] == ["consolidation", "cardiomegaly", "Other labels, all negative"]
    assert [e.words for e in page.with_class("other-name")] == ["emphysema", "atelectasis", "oedema", "effusion"]


@pytest.mark.parametrize("name", ["read", "index", "training", "evaluation", "organs", "overlap"])
def test_failed_audit_marks_every_page(name: str) -> None:
    failed = {
        "read": lambda: render_read(examples.study(verdict=FAIL)),
        "index": lambda: render_index(examples.worklist(verdict=FAIL)),
        "training": lambda: render_training(examples.training(verdict=FAIL)),
        "evaluation": lambda: _evaluation(FAIL),
        "organs": lambda: render_organs(examples.organs(verdict=FAIL)),
        "overlap": lambda: render_overlap(examples.overlap(verdict=FAIL)),
    }[name]()
    (banner,) = Page(failed).with_class("banner-fail")
    assert banner.words == f"Audit failed: do not trust this reader. {FAIL}"
    assert not page_of(name).with_class("banner-fail")
    if name == "read":  # on every film, the gated one too
        assert len(Page(failed).with_class("watermark")) == 2
        assert not page_of(name).with_class("watermark")


def test_worklist_is_sorted_by_urgency_and_counts_add_up() -> None:
    page = page_of("index")
    links = [a.words for a in page.all("a") if a.attributes["href"].endswith("report.html")]
    assert links[:7] == [*(f"PHANTOM-000{i}" for i in (4, 1, 5, 3, 0, 2)), "holiday.jpg"]
    text = page.one("dl" if len(page.all("dl")) == 1 else "main").words
    for said in (
        "studies 7",
        "studies positive 3",
        "studies negative 3",
        "images without a reading 1",
        "files not read 1",
    ):
        assert said in text
    assert "A colour photograph, no radiograph." in text
    assert "got 0 bytes; export the file again" in text


def test_check_puts_what_blocks_first() -> None:
    text = page_of("check").one("main").words
    order = [text.index(title) for title in ("Near-duplicates in two", "Dark images", "Images without a label")]
    assert order == sorted(order)
    assert "Blocked by 1 finding" in text
    assert "3 of 17 images shown" in text
    assert "Nothing found" in page_of("check-clean").one("main").words
    only_warning = examples.check().model_copy(update={"findings": examples.check().findings[1:2]})
    assert "Nothing blocks; 1 warning" in Page(render_check(only_warning)).one("main").words


def test_evaluation_shows_every_estimate_subgroup_and_plot() -> None:
    result, svgs, comparison = examples.evaluation()
    page = page_of("evaluation")
    text = page.one("main").words
    images = {image.attributes["src"] for image in page.all("img")}
    for key, svg in svgs.items():
        shown = any(base64.b64decode(src.partition(",")[2]).decode().endswith(svg[-200:]) for src in images)
        assert shown is (key != "confusion"), key  # the matrix is a table
    matrix = result.confusion
    assert matrix is not None
    assert all(str(cell) in text for row in matrix.counts for cell in row)
    assert result.facts.leak in text
    assert "not assessable: " in text
    assert all(group.value in text for group in result.subgroups)
    assert all(row.verdict in text for row in comparison.rows)


def test_missing_estimate_is_given_with_its_reason() -> None:
    text = page_of("training").one("main").words
    assert "not given nobody was negative" in text
    assert "temperature 1.42; ECE 0.046 (0.035–0.058) before, 0.021 (0.014–0.033) after" in text.replace("  ", " ")
    assert "wetread evaluate runs/x --split test" in text


def test_read_without_operating_point_says_so() -> None:
    study = examples.study(gated=False)
    item = study.reads[0]
    label = item.read.labels[0].model_copy(
        update={"operating_point": None, "decision": "withheld", "reason": "no threshold"}
    )
    read: Read = item.read.model_copy(update={"labels": (label,), "applied": ()})
    item = item.model_copy(update={"read": read, "heatmaps": {}})
    text = Page(render_read(study.model_copy(update={"reads": (item,)}))).one("main").words
    assert "No operating point belongs to this label" in text
    assert "Nothing: the stored values are shown as they are." in text


def test_rendering_is_deterministic() -> None:
    assert render_read(examples.study()) == html_of("read")


def test_organs_page_says_what_was_found_and_what_was_not() -> None:
    page = page_of("organs")
    assert [tile.words for tile in page.all("dd")][-3:] == ["2", "2", "1"]  # both have an empty heart
    assert [h.words for h in page.all("h2")] == ["Not read", "IM0001.dcm", "IM0002.dcm", "Known limits"]
    rows = [row.words for row in page.all("tr")]
    for row in (
        "lungs 0.97 too small",
        "lungs 0.97 none",
        "heart 0.00 empty",
        "area lungs 412.35 cm²",
        "symmetry index lungs 0.91",
    ):
        assert row in rows, row
    text = page.one("main").words
    for said in (
        *("322 films of adults", "No lateral views.", "not a calibrated probability", "empty.dcm 0 bytes"),
        *("Not measured, because the mask of the heart is empty: width of heart.", "No DICOM SEG was written."),
    ):
        assert said in text, said
    assert "Not read" not in page_of("organs-empty").one("main").words


def test_a_note_that_holds_of_every_score_is_said_once() -> None:
    report = examples.overlap()
    (row, *_) = report.metrics
    noted = row.estimate.model_copy(update={"note": "mean over 61 patients"})
    same = (row.model_copy(update={"estimate": noted}),) * 3
    html = render_overlap(report.model_copy(update={"metrics": same}))
    assert html.count("mean over 61 patients") == 1
    assert "Of each score: mean over 61 patients." in html
    other = row.model_copy(update={"estimate": noted.model_copy(update={"note": "2 of 120 not defined"})})
    html = render_overlap(report.model_copy(update={"metrics": (*same, other)}))
    assert html.count("mean over 61 patients") == 3
    assert "2 of 120 not defined" in html


def test_images_without_a_mask_are_counted_on_the_page() -> None:
    assert "without a mask" not in page_of("overlap").one("main").words
    html = render_overlap(examples.overlap().model_copy(update={"n_without_mask": 4}))
    assert "without a mask 4" in Page(html).one("main").words


def test_the_page_of_a_run_says_segmenter_where_it_is_one() -> None:
    report = examples.training()
    words = page_of("training").one("main").words
    assert "About the reader" in words
    assert "chose the checkpoint and the thresholds" in words
    data = report.data.model_copy(update={"task": "segmentation"})
    words = Page(render_training(report.model_copy(update={"data": data}))).one("main").words
    assert "About the segmenter" in words
    assert "chose the checkpoint: expect less on new data" in words


def test_overlap_page_gives_each_score_its_interval_and_n() -> None:
    text = page_of("overlap").one("main").words.replace("\N{NARROW NO-BREAK SPACE}", " ")
    for said in ("0.951 (0.942–0.959) 120", "HD95 lungs (mm)", "patients 61", "flagged masks 7", "Worst cases"):
        assert said in text, said
