"""Pages in a real browser: drawn, quiet, and the same without scripts. Also makes the pictures of the docs.

``WETREAD_UPDATE_SCREENSHOTS=1`` writes ``docs/images/report-*.png``; else nothing is written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.reporting import examples
from wetread.reporting.html import render_check, render_evaluation, render_index, render_read, render_training

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
DARK, LIGHT = ("--blink-settings=preferredColorScheme=0",), ("--blink-settings=preferredColorScheme=1",)
LIMIT_S = 120
ONLY_TESTED = {"read-light", "read-narrow"}
"""Not among the pictures of the docs."""
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: apt-get install chromium")

Pixels = NDArray[np.uint8]


def _run(folder: Path, html: str, *flags: str) -> subprocess.CompletedProcess[str]:
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True, cwd=folder)


def _console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page said on its console: errors, warnings, refused styles and scripts."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def shoot(folder: Path, html: str, size: tuple[int, int], *flags: str) -> tuple[Path, list[str]]:
    """Return the screenshot's file and what the page said on its console."""
    file = folder / "shot.png"
    done = _run(folder, html, f"--screenshot={file}", f"--window-size={size[0]},{size[1]}", *flags)
    assert file.is_file(), done.stderr[-2000:]
    return file, _console(done)


def pixels_of(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _evaluation() -> str:
    result, svgs, comparison = examples.evaluation()
    return render_evaluation(result, svgs, comparison=comparison)


SHOTS: dict[str, tuple[Callable[[], str], tuple[int, int], tuple[str, ...]]] = {
    "read-light": (lambda: render_read(examples.study(gated=False)), (1360, 1150), LIGHT),
    "read-dark": (lambda: render_read(examples.study(gated=False)), (1360, 1150), DARK),
    "read-narrow": (lambda: render_read(examples.study()), (500, 1400), LIGHT),
    "read-heat": (lambda: _heat_on(render_read(examples.study(gated=False))), (1360, 1150), LIGHT),
    "index": (lambda: render_index(examples.worklist()), (1360, 1080), LIGHT),
    "check": (lambda: render_check(examples.check()), (1360, 1400), LIGHT),
    "evaluation": (_evaluation, (1360, 1900), LIGHT),
    "training": (lambda: render_training(examples.training()), (1360, 1500), DARK),
}


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
    pixels = pixels_of(file)
    assert pixels.shape == (size[1], size[0], 3)
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 100  # text alone gives dozens of greys
    blank_rows = (pixels == pixels[:, :1]).all(axis=(1, 2)).mean()
    assert blank_rows < 0.5
    paper_is_light = int(pixels[-3, 3].astype(int).sum()) > 600
    assert paper_is_light == (flags == LIGHT)  # the wish for dark or light is heeded
    if name not in ONLY_TESTED and os.environ.get("WETREAD_UPDATE_SCREENSHOTS") == "1":
        IMAGES.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as picture:
            picture.convert("RGB").save(IMAGES / f"report-{name}.png", optimize=True)


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


def _dom(folder: Path, html: str) -> str:
    done = _run(folder, html, "--dump-dom")
    assert _console(done) == []
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
    _run(tmp_path, render_read(examples.study()), f"--print-to-pdf={file}", "--no-pdf-header-footer")
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
