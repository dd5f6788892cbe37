"""What the tests of the workstation share: films, uploads, and what the browser shows of them."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import REPOSITORY
from tests.service.browser import LoggedIn, wait_for
from wetread.datasets.phantoms import Identity, Phantom, PhantomSpec, render, to_dicom

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = [
    "AXE", "IMAGES", "SIZE", "WATERMARK", "dicom", "failed_reader", "keep_screenshot", "open_study", "phantom",
    "read_through", "seen_pixels", "serious", "small_index", "uploaded",
]  # fmt: skip

IMAGES = REPOSITORY / "docs" / "images"
AXE = REPOSITORY / "web" / "node_modules" / "axe-core" / "axe.min.js"
SIZE = {"width": 1440, "height": 900}
WATERMARK = "Do not trust this reader: planted for a test."
READER = "chest-pneumonia-lungs"


def failed_reader(target: Path) -> None:
    """The shipped reader under another name, with an audit that failed."""
    from wetread.models.bundle import find_reader

    shutil.copytree(find_reader("chest-pneumonia", ()), target)
    card = json.loads((target / "card.json").read_text())
    (target / "card.json").write_text(json.dumps({**card, "name": "failed", "audit_verdict": "FAIL T3"}))
    line = {
        "code": "T3", "question": "Can the label be told without the organ?", "answer": "FAIL",
        "sentence": "A probe outside the lungs reaches AUROC 0.958.", "n": 1000,
    }  # fmt: skip
    passed = {"code": "T1", "question": "Is a patient in two splits?", "answer": "PASS", "sentence": "No.", "n": None}
    audit = {
        "verdict": "FAIL T3", "headline": "Failed: T3", "watermark": WATERMARK, "failed": ["T3"], "data": "planted",
        "split": "test", "n": 1000, "patients": 900, "lines": [passed, line],
    }  # fmt: skip
    (target / "audit.json").write_text(json.dumps(audit))


def small_index(folder: Path) -> Path:
    """An index of three phantoms as the reader of the service sees them: one has the finding, of one nobody knows."""
    import pandas as pd

    from wetread.imaging import load_image
    from wetread.models.bundle import find_reader, load_reader
    from wetread.retrieval.embed import embed_image, mark_of
    from wetread.retrieval.write import Head, build_index

    reader = load_reader(find_reader(READER, ()))
    files = [folder / f"{number}.dcm" for number in range(3)]
    folder.mkdir()
    for number, file in enumerate(files):
        file.write_bytes(dicom(phantom(30 + number), f"CASE-{number}"))
    vectors = np.stack([embed_image(reader, load_image(file)) for file in files]).astype(np.float16)
    rows = pd.DataFrame(
        {
            "path": [file.name for file in files],
            "patient": ["CASE-0", "CASE-1", "CASE-2"],
            "label_PNEUMONIA": [1.0, 0.0, None],
            "root": str(folder),
            "sha256": [f"{number}" * 64 for number in range(3)],
            "images": 1,
        }
    )
    head = Head(
        reader=mark_of(reader), input=reader.input, kind="pooled", level="image", places=(1, 1),
        dataset="three phantoms", task="multilabel", classes=("PNEUMONIA",),
    )  # fmt: skip
    build_index(folder / "index", head, rows, vectors)
    return folder / "index"


def phantom(seed: int = 7, size_px: int = 256) -> Phantom:
    """A drawn chest film."""
    return render(PhantomSpec(seed=seed, size_px=size_px))


def dicom(made: Phantom, patient: str, transfer_syntax: str = "") -> bytes:
    """The film as a DICOM file of one patient."""
    data = to_dicom(made, Identity(patient))
    if transfer_syntax:
        data.compress(transfer_syntax, generate_instance_uid=False)
    target = io.BytesIO()
    data.save_as(target, enforce_file_format=True)
    return target.getvalue()


def uploaded(logged_in: LoggedIn, data: bytes) -> str:
    """Upload a file; return its study."""
    answer = logged_in.api.post("/api/v1/uploads", files={"files": ("x", data)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["studies"][0]["id"])


def read_through(logged_in: LoggedIn, study: str) -> dict[str, Any]:
    """Wait until nothing of a study is being read; return it."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = logged_in.api.get(f"/api/v1/studies/{study}").json()
        return found if found["status"] != "open" else None

    return dict(wait_for(look, 300))


def open_study(page: Page, study: str) -> None:
    """Open a study and wait for its image."""
    page.goto(f"/#/study/{study}")
    page.locator(f"[data-study='{study}'] [data-testid=viewport][data-ready=true]").first.wait_for()


def seen_pixels(page: Page, pane: int = 0) -> NDArray[np.uint8]:
    """The image as the viewer drew it, without what lies over it."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    address = page.locator(".viewport-image canvas").nth(pane).evaluate("canvas => canvas.toDataURL()")
    drawn = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("L"))


def keep_screenshot(page: Page, name: str) -> None:
    """Write a picture of the documentation, where that was asked for."""
    if os.environ.get("WETREAD_UPDATE_SCREENSHOTS"):
        page.mouse.move(0, 0)
        page.wait_for_timeout(400)
        page.screenshot(path=IMAGES / f"workstation-{name}.png")


def serious(page: Page) -> list[tuple[str, str, str]]:
    """What axe finds on the page and calls serious or worse."""
    page.evaluate(AXE.read_text())  # not a script of the page: the security policy would refuse it
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        (one["id"], one["nodes"][0]["html"][:160], one["nodes"][0].get("failureSummary", "")[:200])
        for one in result["violations"]
        if one["impact"] in ("serious", "critical")
    ]
