"""The workstation as a person meets it: Chromium on a running service with its worker and the shipped reader."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.service.browser import NO_CHROMIUM, LoggedIn, chromium, wait_for
from tests.service.workstation import (
    AXE,
    WATERMARK,
    dicom,
    keep_screenshot,
    open_study,
    phantom,
    seen_pixels,
    serious,
    uploaded,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(chromium() is None, reason=NO_CHROMIUM)


def test_from_log_in_over_upload_to_the_signed_report(logged_in: LoggedIn, page: Page) -> None:
    page.goto("/")
    empty = logged_in.api.get("/api/v1/studies").json()["total"] == 0
    (page.get_by_text("No studies yet") if empty else page.locator("table.studies")).wait_for()
    page.get_by_test_id("files").set_input_files(
        {"name": "Doe^Jane.dcm", "mimeType": "application/dicom", "buffer": dicom(phantom(), "77")}
    )
    page.get_by_text("New images: 1. Studies: 1").wait_for()
    assert "Doe" not in page.content()  # a file's name may tell of a patient
    row = page.locator("table.studies tbody tr").filter(has_text="PHANTOM-77")
    row.get_by_text("being read").wait_for()
    row.get_by_role("link").click()
    page.locator("[data-testid=viewport][data-ready=true]").wait_for()
    page.get_by_test_id("waiting").wait_for()
    page.get_by_test_id("waiting").wait_for(state="detached", timeout=180_000)
    finding = page.get_by_label("PNEUMONIA").or_(page.get_by_text("The reader gives no answer for this image:"))
    finding.first.wait_for()

    before = seen_pixels(page)
    box = page.get_by_test_id("viewport").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 380, steps=5)
    page.mouse.up()
    after = seen_pixels(page)
    assert np.abs(before.astype(int) - after).mean() > 3
    page.keyboard.press("r")
    assert np.abs(before.astype(int) - seen_pixels(page)).mean() < 0.5

    page.keyboard.press("q")
    for number, question in enumerate(("What are the findings?", "How sure is it?", "Which drug should I give?"), 1):
        page.get_by_label("Ask about this study").fill(question)
        page.keyboard.press("Enter")
        page.get_by_test_id("answer").nth(number - 1).wait_for()
    assert "I do not advise on treatment" in page.get_by_test_id("answer").last.inner_text()

    page.get_by_role("tab", name="Report").click()
    text = page.get_by_role("textbox", name="Your report")
    text.fill("No infiltrate. Compared by eye.")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("revision 2").wait_for()
    page.get_by_role("button", name="Sign").click()
    page.get_by_role("button", name="Sign now").click()
    page.get_by_text(re.compile("^signed ")).wait_for()
    assert text.get_attribute("readonly") is not None
    page.emulate_media(media="print")
    assert "No infiltrate. Compared by eye." in page.locator(".sheet").inner_text()
    page.emulate_media(media="screen")
    address = page.get_by_role("link", name="PDF").get_attribute("href")
    assert address is not None
    assert logged_in.context.request.get(address).body().startswith(b"%PDF")

    page.goto("/#/log")
    page.get_by_role("button", name="Check the chain").click()
    page.get_by_text("the chain holds").wait_for()
    newest = page.locator("table tbody tr").count()
    if newest == 100:  # other tests came before
        page.get_by_role("button", name="Show more").click()
        wait_for(lambda: page.locator("table tbody tr").count() > newest, 10)
    done = page.locator("table tbody tr td:nth-child(4)").all_inner_texts()
    for action in ("log in once", "upload", "view study", "view image", "read done", "ask", "edit draft", "sign draft"):
        assert action in done, action


def test_the_worklist_by_keyboard(page: Page, worklist: list[dict[str, Any]]) -> None:
    page.goto("/")
    rows = page.locator("table.studies tbody tr")
    rows.first.wait_for()
    urgencies = [one["urgency"] for one in worklist]
    assert urgencies == sorted(urgencies, reverse=True)
    keep_screenshot(page, "worklist")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert rows.nth(1).get_attribute("aria-current") == "true"
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("PHANTOM-05")
    page.get_by_text("1 study").wait_for()
    assert rows.count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.locator("[data-testid=viewport][data-ready=true]").wait_for()
    assert "PHANTOM, 05" in page.locator(".study-head").inner_text()
    page.keyboard.press("Backspace")
    page.get_by_role("button", name="Clear filters").or_(rows.first).first.wait_for()


def test_names_can_be_hidden_and_words_are_spanish_too(
    logged_in: LoggedIn, page: Page, worklist: list[dict[str, Any]]
) -> None:
    page.goto("/")
    page.get_by_text("PHANTOM, 01").first.wait_for()
    page.get_by_role("switch", name="Hide names").click()
    assert "PHANTOM-01" not in page.locator("table.studies").inner_text()
    open_study(page, worklist[0]["id"])
    assert "PHANTOM" not in page.locator("body").inner_text().replace("Chest phantom", "").replace("PHANTOM.", "")
    page.get_by_role("button", name="ES", exact=True).click()
    page.get_by_role("tab", name="Hallazgos").wait_for()
    assert page.evaluate("document.documentElement.lang") == "es"
    page.get_by_role("button", name="EN", exact=True).click()
    page.get_by_role("switch", name="Hide names").click()


def test_the_heat_map_is_off_at_first_and_has_its_limits_beside_it(page: Page, worklist: list[dict[str, Any]]) -> None:
    open_study(page, worklist[0]["id"])
    layers = page.get_by_test_id("layers")
    assert layers.get_attribute("data-shown") == "0"
    plain = layers.evaluate("canvas => canvas.toDataURL()")
    page.keyboard.press("h")
    page.locator("[data-testid=layers][data-shown='1']").wait_for()
    hot = layers.evaluate("canvas => canvas.toDataURL()")
    assert hot != plain
    page.get_by_test_id("legend").get_by_text("Limits").click()
    page.get_by_text("Shows where the score came from, not where disease is.").wait_for()
    keep_screenshot(page, "heat-map")
    page.get_by_label("Opacity").fill("0.2")
    assert layers.evaluate("canvas => canvas.toDataURL()") != hot
    zoom = page.locator(".lower-left")
    page.get_by_role("button", name="Place 1").click()
    page.wait_for_function("() => !document.querySelector('.lower-left').innerText.includes('1.00')")
    assert "Zoom 1.00" not in zoom.inner_text()
    page.keyboard.press("r")
    page.keyboard.press("h")
    assert layers.get_attribute("data-shown") == "0"


def test_a_length_is_in_millimetres_where_the_file_states_them_and_else_in_pixels(
    logged_in: LoggedIn, page: Page
) -> None:
    made = phantom(11)
    target = io.BytesIO()
    Image.fromarray((made.image * 255).astype(np.uint8)).save(target, "PNG")
    for data, unit, spacing in (
        (dicom(made, "81"), "mm", made.pixel_mm),
        (target.getvalue(), "px", 1.0),
    ):
        study = uploaded(logged_in, data)
        open_study(page, study)
        page.keyboard.press("l")
        marks = page.get_by_test_id("marks").bounding_box()
        assert marks is not None
        x, y = marks["x"] + marks["width"] / 2, marks["y"] + marks["height"] / 2
        page.mouse.click(x - 120, y)
        page.mouse.click(x + 120, y + 50)
        cell = page.get_by_test_id("measurement").locator("td").first
        cell.wait_for()
        # the image is square and fills the height
        scale = marks["height"] / made.image.shape[0]
        expected = math.hypot(240, 50) / scale * spacing
        value, shown = cell.inner_text().split()
        assert shown == unit
        assert float(value) == pytest.approx(expected, rel=0.01)
        said = page.locator(".scale-bar").inner_text()
        assert ("No scale" in said) == (unit == "px")
        assert (page.locator(".letter.left").count() == 1) == (unit == "mm")


def test_a_finding_is_corrected_with_a_reason_and_counted(page: Page, worklist: list[dict[str, Any]]) -> None:
    open_study(page, worklist[0]["id"])
    keep_screenshot(page, "study")
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Reason").fill("Effusion, no infiltrate")
    page.get_by_role("button", name="Store").click()
    said = page.get_by_test_id("said")
    said.wait_for()
    assert "edited → negative" in said.inner_text()
    page.get_by_role("tab", name="Report").click()
    page.locator(".phrases .fact").first.wait_for()
    keep_screenshot(page, "report")
    page.locator(".phrases .fact").first.click()
    page.locator("[data-testid=layers][data-shown='1']").wait_for()  # the fact leads to its evidence
    page.goto("/#/feedback")
    page.get_by_text("Effusion, no infiltrate").wait_for()
    assert "0 accepted · 1 edited · 0 rejected" in page.locator(".page").inner_text()


def test_a_prior_stands_beside(page: Page, worklist: list[dict[str, Any]]) -> None:
    (newer, _) = sorted((one for one in worklist if one["patient_id"] == "PHANTOM-01"), key=lambda one: -one["urgency"])
    open_study(page, newer["id"])
    page.get_by_role("navigation", name="Images and priors").get_by_role("button", name="2000-01-01").click()
    page.get_by_test_id("beside").locator("[data-ready=true]").wait_for()
    page.keyboard.press("h")
    page.wait_for_timeout(300)
    keep_screenshot(page, "prior")
    page.get_by_test_id("beside").get_by_role("button", name="Close").click()
    page.get_by_test_id("beside").wait_for(state="detached")


def test_a_reader_whose_audit_failed_is_marked_on_the_image(
    logged_in: LoggedIn, page: Page, worklist: list[dict[str, Any]]
) -> None:
    study = worklist[1]["id"]
    image = logged_in.api.get(f"/api/v1/studies/{study}").json()["image_list"][0]["id"]
    open_study(page, study)
    assert WATERMARK not in page.locator("body").inner_text()
    # its weights are those of the shipped reader: at the same operating point it would be the same question
    question = {"reader": "failed", "operating_point": "youden"}
    asked = logged_in.api.post(f"/api/v1/images/{image}/reads", json=question)
    assert asked.status_code == 202
    job = asked.json()["id"]
    wait_for(lambda: logged_in.api.get(f"/api/v1/jobs/{job}").json()["state"] == "done", 60)
    page.reload()
    mark = page.get_by_test_id("watermark")
    mark.wait_for()
    assert "AUDIT FAILED" in mark.inner_text()
    assert WATERMARK in mark.inner_text()
    page.get_by_text("A probe outside the lungs reaches AUROC 0.958.").wait_for()
    keep_screenshot(page, "audit-failed")
    page.goto("/#/readers/failed")
    page.get_by_text("Can the label be told without the organ?").wait_for()


def test_compressed_films_look_like_plain_ones(logged_in: LoggedIn, page: Page) -> None:
    """JPEG 2000, JPEG-LS and RLE: the first two are decoded by WebAssembly, which the security policy must let run."""
    made = phantom(13)
    shown = []
    for syntax in ("", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"):
        open_study(page, uploaded(logged_in, dicom(made, f"9{syntax[-2:]}", syntax)))
        shown.append(seen_pixels(page).astype(int))
    assert shown[0].std() > 20
    for compressed in shown[1:]:
        assert np.abs(shown[0] - compressed).max() <= 1


def test_axe_finds_nothing_serious(page: Page, worklist: list[dict[str, Any]]) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in web/")
    places = ["/", f"/#/study/{worklist[0]['id']}", "/#/readers", "/#/feedback", "/#/log", "/#/jobs", "/#/tokens"]
    found = []
    for place in places:
        page.goto(place)
        page.wait_for_load_state("load")
        page.locator("h1, h2, table").first.wait_for()
        page.wait_for_timeout(600)
        if place == "/#/readers":
            keep_screenshot(page, "readers")
        found += [(place, *one) for one in serious(page)]
    assert found == []


def test_somebody_else_logs_in_with_a_password_and_out(logged_in: LoggedIn) -> None:
    other = logged_in.context.browser
    assert other is not None
    stranger = other.new_context(base_url=logged_in.base)
    try:
        page = stranger.new_page()
        page.goto("/#/readers")
        page.get_by_role("button", name="Log in", exact=True).wait_for()
        page.get_by_label("Name").fill("admin")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert "PHANTOM" not in page.content()
        body = {"name": "grace", "role": "reader", "password": "correct horse battery"}
        assert logged_in.api.post("/api/v1/users", json=body).status_code == 201
        page.get_by_label("Name").fill("grace")
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Log in", exact=True).click()
        page.get_by_role("link", name="Readers").wait_for()
        assert page.get_by_role("link", name="Audit log").count() == 0  # not for this role
        page.get_by_role("button", name="Log out").click()
        page.get_by_role("button", name="Log in", exact=True).wait_for()
    finally:
        stranger.close()
