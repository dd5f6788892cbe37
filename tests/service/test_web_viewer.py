"""The viewer, measured: windows, true spacing, frames, masks, cases and priors beside, as a person reaches them."""

from __future__ import annotations

import base64
import io
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from tests.service.browser import NO_CHROMIUM, LoggedIn, chromium, wait_for
from tests.service.workstation import (
    dicom,
    keep_screenshot,
    open_study,
    phantom,
    read_through,
    seen_pixels,
    uploaded,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(chromium() is None, reason=NO_CHROMIUM)

ROW_MM, COLUMN_MM = 0.4, 0.2
DOTS = ((60, 50), (60, 200), (180, 50))
"""Bright squares on the film of a grid: (row, column) of their centres."""


def grid(patient: str) -> bytes:
    """A film of 256 x 256 pixels that are twice as high as wide, with a bright square at each of :data:`DOTS`."""
    data = dcmread(io.BytesIO(dicom(phantom(21), patient)))
    pixels = np.full((256, 256), 300, np.uint16)
    for row, column in DOTS:
        pixels[row - 3 : row + 3, column - 3 : column + 3] = 4000
    data.PixelData = pixels.tobytes()
    data.Rows = data.Columns = 256
    data.PixelSpacing = data.ImagerPixelSpacing = [ROW_MM, COLUMN_MM]
    data.WindowCenter, data.WindowWidth = 2048, 4096
    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    return target.getvalue()


def loop(patient: str, frames: int) -> bytes:
    """A multi-frame DICOM file: one film that gets brighter from frame to frame."""
    made = phantom(23)
    data = dcmread(io.BytesIO(dicom(made, patient)))
    stored = data.pixel_array
    shares = np.linspace(0.3, 1, frames)
    data.PixelData = np.stack([(stored * share).astype(stored.dtype) for share in shares]).tobytes()
    data.NumberOfFrames = frames
    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    return target.getvalue()


def bright_spots(shown: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Centres (x, y) of the bright squares as they lie on the screen, in the order of :data:`DOTS`."""
    from scipy.ndimage import center_of_mass, label

    marked, count = label(shown > 150)
    assert count == 3
    spots = [(float(x), float(y)) for y, x in center_of_mass(shown > 150, marked, [1, 2, 3])]
    upper = sorted(sorted(spots, key=lambda spot: spot[1])[:2])
    lower = max(spots, key=lambda spot: spot[1])
    return [*upper, lower]


def test_windows_inversion_and_turns_show_in_the_pixels_and_reset_undoes_them(logged_in: LoggedIn, page: Page) -> None:
    open_study(page, uploaded(logged_in, dicom(phantom(19), "84")))
    plain = seen_pixels(page).astype(int)
    middle = (slice(200, 500), slice(250, 550))
    page.keyboard.press("i")
    assert np.abs(255 - plain[middle] - seen_pixels(page)[middle]).mean() < 2
    page.keyboard.press("i")
    page.keyboard.press("t")
    side = min(plain.shape) // 2 - 4
    centre = plain.shape[0] // 2, plain.shape[1] // 2
    cut = (slice(centre[0] - side, centre[0] + side), slice(centre[1] - side, centre[1] + side))
    turned = seen_pixels(page)[cut].astype(int)
    assert np.abs(np.rot90(plain[cut], -1) - turned).mean() < 6 < np.abs(plain[cut] - turned).mean()
    page.keyboard.press("r")
    shown = []
    for preset in "12345":
        page.keyboard.press(preset)
        shown.append(seen_pixels(page).astype(int))
    assert np.abs(shown[0] - plain).mean() < 1
    changes = [float(np.abs(one - plain)[middle].mean()) for one in shown[1:]]
    assert max(changes) > 20
    assert len({one.tobytes() for one in shown}) >= 4
    page.get_by_label("Window", exact=True).select_option("3")
    assert np.abs(seen_pixels(page).astype(int) - shown[3]).mean() < 1
    page.keyboard.press("r")
    assert np.abs(seen_pixels(page).astype(int) - plain).mean() < 0.5


def test_lengths_and_angles_are_true_on_pixels_that_are_not_square(logged_in: LoggedIn, page: Page) -> None:
    study = uploaded(logged_in, grid("85"))
    open_study(page, study)
    box = page.get_by_test_id("marks").bounding_box()
    assert box is not None
    corner, right, low = [(box["x"] + x, box["y"] + y) for x, y in bright_spots(seen_pixels(page))]
    page.keyboard.press("l")
    for first, second in ((corner, right), (corner, low), (right, low)):
        page.mouse.click(*first)
        page.mouse.click(*second)
    page.keyboard.press("a")
    for point in (corner, right, low):
        page.mouse.click(*point)
    cells = page.get_by_test_id("measurement").locator("td.num")
    page.get_by_test_id("measurement").nth(3).wait_for()
    across, down = 150 * COLUMN_MM, 120 * ROW_MM
    said = [text.split() for text in cells.all_inner_texts()]
    assert [unit for _, unit in said[:3]] == ["mm"] * 3
    lengths = [float(value) for value, _ in said[:3]]
    assert lengths == pytest.approx([across, down, math.hypot(across, down)], rel=0.01)
    angle = float(said[3][0].rstrip("°"))
    assert angle == pytest.approx(math.degrees(math.atan2(down, across)), abs=0.6)
    page.reload()  # they are kept with the study
    page.get_by_test_id("measurement").nth(3).wait_for()
    page.get_by_role("button", name="Remove").first.click()
    wait_for(lambda: page.get_by_test_id("measurement").count() == 3, 10)


def test_organ_masks_cover_what_they_are_said_to_cover(logged_in: LoggedIn, page: Page) -> None:
    study = uploaded(logged_in, dicom(phantom(19), "84"))
    open_study(page, study)
    page.get_by_role("button", name="Outline organs").click()
    page.get_by_role("button", name="Show masks").click(timeout=180_000)
    page.locator("[data-testid=layers]:not([data-shown='0'])").wait_for()
    page.get_by_label("Opacity").fill("1")
    (image,) = logged_in.api.get(f"/api/v1/studies/{study}").json()["image_list"]
    organs = next(one for one in image["results"] if one["kind"] == "segment")["record"]["organs"]
    said = sum(one["image_share"] for one in organs)
    address = page.get_by_test_id("layers").evaluate("canvas => canvas.toDataURL()")
    drawn = np.asarray(_picture(address))[..., 3]
    film = page.get_by_test_id("layers").bounding_box()
    assert film is not None
    assert (drawn > 0).sum() / film["height"] ** 2 == pytest.approx(said, abs=0.02)  # the film is square
    legend = page.get_by_test_id("legend").inner_text()
    assert all(one["organ"].replace("_", " ") in legend for one in organs)
    keep_screenshot(page, "masks")
    page.keyboard.press("m")
    assert page.get_by_test_id("layers").get_attribute("data-shown") == "0"


def _picture(address: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_a_similar_case_stands_beside_with_its_outcome(page: Page, worklist: list[dict[str, Any]]) -> None:
    open_study(page, worklist[0]["id"])
    page.get_by_role("button", name="Look for them").click()
    cases = page.locator(".cases .case")
    cases.first.wait_for(timeout=180_000)
    outcomes = page.locator(".case-outcome").all_inner_texts()
    assert sorted(outcomes) == ["PNEUMONIA", "none of the labels", "outcome unknown"]
    page.get_by_text("1 of 2 with a known outcome have PNEUMONIA.").wait_for()
    cases.nth(1).click()
    beside = page.get_by_test_id("beside")
    picture = beside.get_by_role("img", name="Similar case 2")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    keep_screenshot(page, "similar")
    cases.nth(1).click()
    beside.wait_for(state="detached")
    page.keyboard.press("q")
    page.get_by_role("button", name="Are there similar cases?").click()
    page.get_by_test_id("answer").get_by_role("button", name="Open beside").click()
    beside.get_by_text("Similar case 1").wait_for()


def test_the_assistant_compares_with_the_prior_and_opens_it(page: Page, worklist: list[dict[str, Any]]) -> None:
    newer = max((one for one in worklist if one["patient_id"] == "PHANTOM-01"), key=lambda one: one["study_date"])
    open_study(page, newer["id"])
    page.keyboard.press("q")
    page.get_by_role("button", name="Compare with the prior").click()
    answer = page.get_by_test_id("answer")
    answer.wait_for()
    assert re.search(r"Another study of this patient, \d+ days? earlier: PNEUMONIA", answer.inner_text())
    answer.get_by_role("button", name="Open beside").click()
    beside = page.get_by_test_id("beside")
    beside.locator("[data-ready=true]").wait_for()
    assert re.search(r"Prior 2000-\d\d-\d\d · (\d+ days?|\d+ months) earlier", beside.inner_text())
    assert np.abs(seen_pixels(page, 0).astype(int) - seen_pixels(page, 1)).mean() > 0.5
    assert "This study 2000-" in page.locator(".panes").inner_text()


def test_files_that_are_dropped_are_uploaded(page: Page, worklist: list[dict[str, Any]]) -> None:
    page.goto("/")
    page.locator("table.studies tbody tr").first.wait_for()
    files = [base64.b64encode(dicom(phantom(41 + number, 128), f"4{number}")).decode() for number in range(2)]
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [n, text] of files.entries()) {
                const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], `Doe^Jane ${n}.dcm`));
            }
            return transfer;
        }""",
        files,
    )
    target = page.locator(".worklist")
    target.dispatch_event("dragover", {"dataTransfer": transfer})
    page.get_by_text("Drop to upload").wait_for()
    target.dispatch_event("drop", {"dataTransfer": transfer})
    page.get_by_text("New images: 2. Studies: 2").wait_for()
    page.get_by_text("Drop to upload").wait_for(state="detached")
    page.get_by_text("PHANTOM-41").wait_for()
    assert "Doe" not in page.content()


def test_frames_of_one_file_are_a_stack_and_findings_say_of_which(logged_in: LoggedIn, page: Page) -> None:
    study = uploaded(logged_in, loop("86", 9))
    read_through(logged_in, study)
    open_study(page, study)
    page.get_by_text("Findings of frame 5 of 9").wait_for()
    assert page.get_by_role("button", name="Image 1").count() == 1
    level = float(seen_pixels(page).mean())
    slider = page.get_by_label("Frame", exact=True)
    assert slider.input_value() == "5"
    keep_screenshot(page, "frames")
    slider.fill("9")
    page.get_by_text("Frame 9 of 9", exact=True).wait_for()
    page.get_by_text("Frame 9 of 9 has not been read.").wait_for()
    wait_for(lambda: float(seen_pixels(page).mean()) > 1.2 * level, 20)
    middle = page.get_by_test_id("viewport").bounding_box()
    assert middle is not None
    page.mouse.move(middle["x"] + 300, middle["y"] + 300)
    page.mouse.wheel(0, -100)
    page.get_by_text("Frame 8 of 9", exact=True).wait_for()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("Frame 7 of 9 has not been read.").wait_for()
    page.get_by_role("button", name="Read this frame").click()
    page.get_by_text("Findings of frame 7 of 9").wait_for(timeout=180_000)
    page.get_by_text("The reader gives no answer").or_(page.get_by_label("PNEUMONIA")).first.wait_for(timeout=180_000)


def test_the_worklist_is_filtered_by_modality_part_and_age(page: Page, worklist: list[dict[str, Any]]) -> None:
    page.goto("/")
    rows = page.locator("table.studies tbody tr")
    rows.first.wait_for()
    page.get_by_label("Age of the study").select_option("7")
    wait_for(lambda: "PHANTOM-01" not in page.locator("body").inner_text(), 10)  # the phantoms are of the year 2000
    page.get_by_label("Age of the study").select_option("0")
    page.get_by_label("Modality").select_option("CT")
    page.get_by_text("No study matches").wait_for()
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("Body part").select_option("CHEST")
    page.get_by_text("PHANTOM-01").first.wait_for()
