"""The workstation in Chromium: time to the first image, weight of the pages, number of files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import Figure, arguments, summarise, write_figures
from tests.service.browser import NO_CHROMIUM, LoggedIn, browser, chromium, log_in, serve
from wetread.service.pages import FOLDER

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

REPEATS = 7


def main() -> None:
    options = arguments(__doc__, "results/web.csv").parse_args()
    if chromium() is None:
        raise SystemExit(NO_CHROMIUM)
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder), {}) as served,
        browser() as opened,
        log_in(opened, served) as logged_in,
    ):
        logged_in.api.post("/api/v1/phantoms")
        study = logged_in.read_all()[0]["id"]
        figures = [*timed(logged_in, study), *weighed(logged_in, study), *built()]
    write_figures(options.out, figures)
    for figure in figures:
        print(f"{figure.what:44} {figure.value:10.1f} {figure.unit:6} {figure.bar}")


def timed(logged_in: LoggedIn, study: str) -> list[Figure]:
    """From the address of a study to its first image, with nothing kept and with everything kept by the browser."""
    cold, warm = [], []
    for _ in range(REPEATS):
        context = same_log_in(logged_in)
        cold.append(first_image_ms(context, study))
        warm.append(first_image_ms(context, study))
        context.close()
    protocol = f"median of {REPEATS}, loopback, software rendering, a 1024 x 1024 phantom, from the address to pixels"
    return [
        summarise("first image, empty browser", cold, "ms", protocol),
        summarise("first image, files kept", warm, "ms", protocol),
    ]


def weighed(logged_in: LoggedIn, study: str) -> list[Figure]:
    """What goes over the wire until the first image."""
    context = same_log_in(logged_in)
    page = context.new_page()
    session = context.new_cdp_session(page)
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    session.send("Network.enable")
    page.goto(f"/#/study/{study}")
    page.locator("[data-testid=viewport][data-ready=true]").wait_for()
    page.wait_for_timeout(1000)
    context.close()
    protocol = "bytes received until a second after the first image, empty browser, gzip; the film among them"
    return [
        Figure("over the wire until the first image", sum(sizes) / 1e6, "MB", protocol, len(sizes)),
        Figure("requests until the first image", float(len(sizes)), "", protocol, len(sizes)),
    ]


def built() -> list[Figure]:
    """The built pages as they lie in the package."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    scripts = [path for path in files if path.suffix == ".js"]
    weight = sum(path.stat().st_size for path in files) / 1e6
    return [
        Figure("pages in the package", weight, "MB", "sum of all files, not compressed", len(files)),
        Figure("scripts", float(len(scripts)), "", "chunks, workers among them", len(scripts)),
    ]


def same_log_in(logged_in: LoggedIn) -> BrowserContext:
    """A browser without anything kept but the log-in."""
    opened = logged_in.context.browser
    if opened is None:
        raise SystemExit("the browser has gone")
    return opened.new_context(base_url=logged_in.base, storage_state=logged_in.context.storage_state())


def first_image_ms(context: BrowserContext, study: str) -> float:
    """Milliseconds from asking for the page to the first rendering of the image."""
    page = context.new_page()
    page.goto(f"/#/study/{study}")
    page.locator("[data-testid=viewport][data-ready=true]").wait_for()
    took = float(page.evaluate("performance.getEntriesByName('wetread-first-image')[0].startTime"))
    page.close()
    return took


if __name__ == "__main__":
    main()
