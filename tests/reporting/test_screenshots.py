"""Pages in a real browser: drawn, quiet, and the same without scripts. Also makes the pictures of the docs.

``WETREAD_UPDATE_SCREENSHOTS=1`` writes ``docs/images/report-*.png``; else nothing is written.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.reporting import cardiac_examples, examples, similar_examples, study_examples, trust_examples
from tests.reporting.browser import (
    DARK,
    LIGHT,
    LIMIT_S,
    NEEDS_BROWSER,
    UPDATING,
    browse,
    console_of,
    keep,
    pixels_of,
    require_drawn,
    shoot,
)
from wetread.reporting.facts import StudyReport
from wetread.reporting.html import render_check, render_evaluation, render_index, render_read, render_training

ONLY_TESTED = {"read-light", "read-narrow"}
"""Not among the pictures of the docs."""

pytestmark = NEEDS_BROWSER


def _evaluation() -> str:
    result, svgs, comparison = examples.evaluation()
    return render_evaluation(result, svgs, comparison=comparison)


SHOTS: dict[str, tuple[Callable[[], str], tuple[int, int], tuple[str, ...]]] = {
    "read-light": (lambda: render_read(examples.study(gated=False)), (1360, 1150), LIGHT),
    "read-dark": (lambda: render_read(examples.study(gated=False)), (1360, 1150), DARK),
    "read-narrow": (lambda: render_read(examples.study()), (500, 1400), LIGHT),
    "read-heat": (lambda: _heat_on(render_read(examples.study(gated=False))), (1360, 1150), LIGHT),
    "read-similar": (lambda: render_read(similar_examples.study_with_cases()), (1360, 1640), LIGHT),
    "study": (lambda: study_examples.study_page(slide=False), (1360, 1640), LIGHT),
    "study-evaluation": (study_examples.evaluation_page, (1360, 1700), LIGHT),
    "read-cardiac": (lambda: _widths_on(render_read(_disagreeing())), (1360, 1120), LIGHT),
    "index": (lambda: render_index(examples.worklist()), (1360, 1080), LIGHT),
    "check": (lambda: render_check(examples.check()), (1360, 1400), LIGHT),
    "evaluation": (_evaluation, (1360, 1900), LIGHT),
    "audit": (trust_examples.audit_page, (1360, 1500), LIGHT),
    "compare": (trust_examples.compare_page, (1360, 1000), LIGHT),
    "training": (lambda: render_training(examples.training()), (1360, 1500), DARK),
}


def _disagreeing() -> StudyReport:
    """A large heart that the classifier misses."""
    return cardiac_examples.compared_study(cardiac_examples.measured(0.12))


def _widths_on(html: str) -> str:
    """The page as it is after a click on ``Widths``."""
    return html.replace('class="show-widths"', 'class="show-widths" checked')


def _heat_on(html: str) -> str:
    """The page as it is after a click on the first heat map and on ``Boxes``."""
    off, on = 'id="heat-1-off" checked', 'id="heat-1-1"'
    assert html.count(off) == html.count(on) == 1
    html = html.replace(off, off.removesuffix(" checked")).replace(on, f"{on} checked")
    return html.replace('class="show-boxes"', 'class="show-boxes" checked')


@pytest.mark.parametrize("name", SHOTS)
def test_page_is_drawn_and_says_nothing_on_the_console(name: str, tmp_path: Path) -> None:
    render, size, flags = SHOTS[name]
    file, said = shoot(tmp_path, render(), size, *flags)
    assert said == []
    require_drawn(file, size, flags)
    if name not in ONLY_TESTED and UPDATING:
        keep(file, name)


def test_the_console_check_sees_a_refused_style(tmp_path: Path) -> None:
    html = render_check(examples.check(clean=True)).replace("<main ", '<main style="color:red" ')
    _, said = shoot(tmp_path, html, (600, 400))
    assert any("Content Security Policy" in line for line in said)


def test_heat_map_and_boxes_appear_without_scripts(tmp_path: Path) -> None:
    html = re.sub(r"<script>.*?</script>", "", render_read(examples.study(gated=False)), flags=re.DOTALL)
    assert "<script" not in html
    before = pixels_of(shoot(tmp_path, html, (1000, 1600), *LIGHT)[0])
    after = pixels_of(shoot(tmp_path, _heat_on(html), (1000, 1600), *LIGHT)[0])
    film_is_grey = np.ptp(before.astype(int), axis=2) <= 2
    coloured = film_is_grey & (np.ptp(after.astype(int), axis=2) > 60)
    assert coloured.sum() > 2000  # inferno over film
    blue = (np.abs(after.astype(int) - np.array([86, 180, 233])) <= 12).all(axis=2)
    assert blue.sum() > 200  # the box


def test_widths_of_heart_and_chest_appear_without_scripts(tmp_path: Path) -> None:
    html = re.sub(r"<script>.*?</script>", "", render_read(_disagreeing()), flags=re.DOTALL)
    before, after = (pixels_of(shoot(tmp_path, one, (1000, 900), *LIGHT)[0]) for one in (html, _widths_on(html)))
    for colour in ((230, 159, 0), (86, 180, 233)):
        drawn = [(np.abs(one.astype(int) - np.array(colour)) <= 12).all(axis=2).sum() for one in (before, after)]
        assert drawn[1] > drawn[0] + 200


def _dom(folder: Path, html: str) -> str:
    done = browse(folder, html, "--dump-dom")
    assert console_of(done) == []
    return done.stdout


def test_script_runs_under_the_policy_and_only_adds(tmp_path: Path) -> None:
    html = render_read(examples.study(gated=False))
    slider = re.search(r'<span class="slider"[^>]*>', _dom(tmp_path, html))
    assert slider is not None
    assert "hidden" not in slider[0]
    assert '<span class="slider" hidden>' in html  # without the script it is not offered


def test_worklist_sorts_by_a_click(tmp_path: Path) -> None:
    html = render_index(examples.worklist())
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', html)
    assert policy is not None
    click = "document.querySelectorAll('th button')[%d].click();"
    for column, clicks, first in ((0, 1, "PHANTOM-0005"), (2, 1, "holiday.jpg"), (2, 2, "PHANTOM-0004")):
        clicked = html.replace(policy[0], "").replace("</body>", f"<script>{click % column * clicks}</script></body>")
        table = _dom(tmp_path, clicked).split("<tbody>")[1]
        names = re.findall(r'data-sort="([^"]*)"><a', table)
        assert names[0] == first
        assert len(names) == 7


def test_print_repeats_the_banner_and_shows_no_controls(tmp_path: Path) -> None:
    file = tmp_path / "page.pdf"
    browse(tmp_path, render_read(examples.study()), f"--print-to-pdf={file}", "--no-pdf-header-footer")
    assert file.read_bytes().startswith(b"%PDF")
    assert file.stat().st_size > 20_000
    tool = shutil.which("pdftotext")
    if tool is None:
        pytest.skip("the text of a PDF is read by pdftotext: apt-get install poppler-utils")
    text = subprocess.run([tool, str(file), "-"], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout
    pages = text.split("\f")[:-1]
    assert len(pages) >= 2
    assert all("Research use only. Not a diagnosis." in page for page in pages)
    assert "Enlarge" not in text
