"""Pages beside the study: users, tokens, jobs, the log-in through a provider; in both languages and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.service.browser import NO_CHROMIUM, LoggedIn, chromium, serve
from tests.service.workstation import AXE, dicom, keep_screenshot, phantom, serious, uploaded

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(chromium() is None, reason=NO_CHROMIUM)

PASSWORD = "correct horse battery"


@pytest.fixture
def stranger(logged_in: LoggedIn) -> Iterator[Page]:
    """A page of a browser in which nobody is logged in."""
    opened = logged_in.context.browser
    assert opened is not None
    context = opened.new_context(base_url=logged_in.base, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(40_000)
    yield page
    context.close()


def test_an_admin_adds_changes_and_resets_a_user(logged_in: LoggedIn, page: Page, stranger: Page) -> None:
    page.goto("/#/users")
    page.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog", name="Add a user")
    dialog.get_by_label("Name", exact=True).fill("hopper")
    dialog.get_by_label("Role").select_option("annotator")
    dialog.get_by_label("Worklists").fill("main, ward")
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Add a user").click()
    row = page.get_by_test_id("user").filter(has_text="hopper")
    row.wait_for()
    assert "Annotator" in row.inner_text()
    assert "main, ward" in row.inner_text()
    keep_screenshot(page, "users")
    found = serious(page) if AXE.is_file() else []

    row.get_by_role("button", name="Change hopper").click()
    change = page.get_by_role("dialog", name="Change hopper")
    found += serious(page) if AXE.is_file() else []
    assert found == []
    change.get_by_role("button", name="Make a one-time address").click()
    address = change.get_by_test_id("secret").input_value()
    assert address.startswith(logged_in.base)
    stranger.goto(address)
    stranger.get_by_role("link", name="hopper").wait_for()
    assert stranger.get_by_role("link", name="Users").count() == 0
    stranger.goto(f"{logged_in.base}/#/users")
    stranger.get_by_text("This page needs the role admin.").wait_for()

    change.get_by_label("New password").fill("another horse battery")
    change.get_by_role("button", name="Set the password").click()
    change.wait_for(state="detached")
    given = {"name": "hopper", "password": PASSWORD}
    assert httpx.post(f"{logged_in.base}/api/v1/session", json=given).status_code == 401
    given["password"] = "another horse battery"
    assert httpx.post(f"{logged_in.base}/api/v1/session", json=given).status_code == 200
    row.get_by_role("button", name="Change hopper").click()
    page.get_by_role("button", name="Disable").click()
    row.get_by_text("disabled").wait_for()
    assert httpx.post(f"{logged_in.base}/api/v1/session", json=given).status_code == 401
    page.get_by_test_id("user").filter(has_text="(you)").get_by_role("button").click()
    assert page.get_by_role("button", name="Disable").count() == 0  # nobody locks oneself out
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


def test_a_token_is_shown_once_works_and_is_revoked(logged_in: LoggedIn, page: Page) -> None:
    page.goto("/#/tokens")
    page.get_by_label("For which program").fill("night script")
    page.get_by_label("Ends after").select_option("1")
    page.get_by_role("button", name="Make token").click()
    secret = page.get_by_test_id("secret").input_value()
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{logged_in.base}/api/v1/studies", headers=headers).status_code == 200
    assert httpx.post(f"{logged_in.base}/api/v1/phantoms", headers=headers).status_code == 403  # scope read alone
    page.reload()
    row = page.get_by_test_id("token").filter(has_text="night script")
    row.wait_for()
    keep_screenshot(page, "tokens")
    assert secret not in page.content()
    row.get_by_role("button", name="Revoke night script").click()
    row.get_by_text("revoked").wait_for()
    assert httpx.get(f"{logged_in.base}/api/v1/studies", headers=headers).status_code == 401


def test_jobs_are_seen_while_they_run_cancelled_and_tried_again(
    logged_in: LoggedIn, page: Page, worklist: list[dict[str, Any]]
) -> None:
    page.goto("/#/jobs")
    page.get_by_test_id("job").first.wait_for()
    study = uploaded(logged_in, dicom(phantom(51), "51"))
    rows = page.locator(f"[data-testid=job]:has(a[href='#/study/{study}'])")
    rows.filter(has_text="done").wait_for(timeout=180_000)  # without a reload
    keep_screenshot(page, "jobs")
    image = logged_in.api.get(f"/api/v1/studies/{study}").json()["image_list"][0]["id"]
    for method in ("occlusion", "lime", "rise"):
        body = {"label": "PNEUMONIA", "method": method}
        logged_in.api.post(f"/api/v1/images/{image}/explanations", json=body)
    rows.filter(has_text="waiting").first.get_by_role("button", name="Cancel").click()
    given_up = rows.filter(has_text="cancelled")
    given_up.first.wait_for()
    page.get_by_role("button", name="cancelled").click()
    given_up.first.get_by_role("button", name="Try again").click()
    given_up.first.wait_for(state="detached")
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="done", pressed=True).wait_for()
    for job in logged_in.api.get("/api/v1/jobs", params={"state": "queued"}).json()["jobs"]:
        logged_in.api.post(f"/api/v1/jobs/{job['id']}/cancel")


def test_every_page_speaks_spanish(page: Page, worklist: list[dict[str, Any]]) -> None:
    page.goto("/")
    page.get_by_role("button", name="ES", exact=True).click()
    places = {
        "/": ("Urgencia", "Recibido", "estudios"),
        "/#/jobs": ("Tareas", "Pedida por"),
        "/#/users": ("Usuarios", "Añadir usuario"),
        "/#/tokens": ("Sus claves", "Crear clave"),
        "/#/readers": ("Aprendió de", "Límites"),
        "/#/feedback": ("Opiniones", "Exportar como manifiesto"),
        "/#/log": ("Registro", "Comprobar la cadena"),
        f"/#/study/{worklist[0]['id']}": ("Hallazgos", "Casos similares", "Medidas", "Confianza"),
    }
    try:
        for place, words in places.items():
            page.goto(place)
            for word in words:
                page.get_by_text(word).locator("visible=true").first.wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Teclado").get_by_text("Longitud").wait_for()
        page.keyboard.press("Escape")
    finally:
        page.get_by_role("button", name="EN", exact=True).click()


def test_a_provider_of_log_ins_has_its_button(stranger: Page, tmp_path: Path) -> None:
    stranger.goto("/")
    stranger.get_by_role("button", name="Log in", exact=True).wait_for()
    assert stranger.get_by_role("link", name="Log in with").count() == 0
    flags = ("--no-worker", "--oidc-issuer", "https://id.example", "--oidc-client", "wetread")
    with serve(tmp_path / "service", {}, *flags) as served:
        stranger.goto(served.base)
        button = stranger.get_by_role("link", name="Log in with id.example")
        button.wait_for()
        assert button.get_attribute("href") == "/login/openid"
        keep_screenshot(stranger, "log-in")
        assert (serious(stranger) if AXE.is_file() else []) == []
