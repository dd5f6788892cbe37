"""The workstation in Chromium: time to the first image, weight of the pages, number of files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import Figure, arguments, summarise, write_figures
from tests.service.browser import NO_CHROMIUM, LoggedIn, browser, chromium, log_in, serve
from wetread.service.pages import FOLDER

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

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
    """From the address of a study, and from a click in the worklist, to the first picture and to the viewer's image."""
    times: dict[str, list[tuple[float, float]]] = {"empty browser": [], "files kept": [], "from the worklist": []}
    for _ in range(REPEATS):
        context = same_log_in(logged_in)
        times["empty browser"].append(after_address_ms(context, study))
        times["files kept"].append(after_address_ms(context, study))
        times["from the worklist"].append(after_click_ms(context))
        context.close()
    protocol = f"median of {REPEATS}, loopback, software rendering, a 1024 x 1024 phantom, from the {{}} to pixels"
    figures = []
    for how, both in times.items():
        since = protocol.format("click on a study, worklist open for 3 s" if "worklist" in how else "address")
        picture = f"{since}: the film as 8 bit, windowed as the file says, shown while the viewer loads"
        viewer = f"{since}: the stored values, rendered by the viewer"
        figures += [
            summarise(f"first picture, {how}", [one for one, _ in both], "ms", picture, "<= 1500"),
            summarise(f"first image in the viewer, {how}", [one for _, one in both], "ms", viewer, "<= 1500"),
        ]
    return figures


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


def after_address_ms(context: BrowserContext, study: str) -> tuple[float, float]:
    """Milliseconds from asking for the page to the first picture and to the viewer's first image."""
    page = context.new_page()
    page.goto(f"/#/study/{study}")
    both = shown_ms(page)
    page.close()
    return both


def after_click_ms(context: BrowserContext) -> tuple[float, float]:
    """Milliseconds from a click in the worklist to the first picture and to the viewer's first image."""
    page = context.new_page()
    page.goto("/")
    row = page.locator("tbody tr").first
    row.wait_for()
    page.wait_for_timeout(3000)  # a person looks at the worklist before choosing
    page.evaluate("addEventListener('click', () => performance.mark('asked'), { capture: true, once: true })")
    row.click()
    picture, image = shown_ms(page)
    asked = float(page.evaluate("performance.getEntriesByName('asked')[0].startTime"))
    page.close()
    return picture - asked, image - asked


def shown_ms(page: Page) -> tuple[float, float]:
    """When the first picture and the viewer's first image were seen, since the page was asked for.

    Where the viewer is faster, there is no picture before it: then both are one.
    """
    page.locator("[data-testid=viewport][data-ready=true]").wait_for()
    first = "(name) => performance.getEntriesByName(name)[0]?.startTime ?? Infinity"
    image = float(page.evaluate(first, "wetread-first-image"))
    return min(image, float(page.evaluate(first, "wetread-first-picture"))), image


if __name__ == "__main__":
    main()
