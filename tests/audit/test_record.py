"""The verdict reaches the card, the page of the bundle and every read; another reader's verdict does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.reading.support import image_from, make_bundle, phantom
from wetread.audit.record import record_audit
from wetread.audit.result import AuditResult
from wetread.errors import BundleRefused
from wetread.models.bundle import AUDIT_FILE, export_reader, import_reader, load_card, load_reader
from wetread.reading.read import read_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "reader")
    return tmp_path / "reader"


def audited(folder: Path, **changes: object) -> AuditResult:
    identity = load_card(folder).identity
    facts = {
        "reader": identity, "data": "films", "split": "test", "n": 10, "patients": 10, "organ": "lungs",
        "organ_from": "annotated", "lines": (), "verdict": "FAIL T3 on films", "headline": "Failed: T3",
        "failed": ("T3",), "watermark": "Do not trust this reader.",
    }  # fmt: skip
    return AuditResult.model_validate(facts | changes)


def test_the_verdict_and_the_status_of_heat_maps_are_on_the_card_and_in_every_read(folder: Path) -> None:
    record_audit(folder, audited(folder, heat_maps={"gradcam": "fails", "hirescam": "passes"}))
    reader = load_reader(folder)  # the hashes of the weights still hold
    assert reader.card.audit_verdict == "FAIL T3 on films"
    assert "Audit verdict: FAIL T3 on films" in (folder / "README.md").read_text(encoding="utf-8")
    assert json.loads((folder / AUDIT_FILE).read_text(encoding="utf-8"))["watermark"] == "Do not trust this reader."
    read = read_image(reader, image_from(phantom(0).image))
    assert read.model.audit_verdict == "FAIL T3 on films"
    evidence = read.labels[0].evidence
    assert evidence is not None
    assert evidence.status.startswith("hidden, because maps of this method do not depend on what this reader")


def test_a_second_audit_keeps_what_it_did_not_ask(folder: Path) -> None:
    record_audit(folder, audited(folder, heat_maps={"gradcam": "fails"}))
    card = record_audit(folder, audited(folder, verdict="PASS on films", heat_maps={"hirescam": "passes"}))
    assert card.audit_verdict == "PASS on films"
    assert card.heat_maps == {"gradcam": "fails", "hirescam": "passes"}


def test_the_verdict_of_another_reader_is_refused(folder: Path) -> None:
    other = load_card(folder).identity.model_copy(update={"sha256": "1" * 64})
    with pytest.raises(BundleRefused, match="expected the audited reader, sha256 111111111111…, got another, "):
        record_audit(folder, audited(folder, reader=other))
    assert load_card(folder).audit_verdict == "not audited"


def test_the_audit_travels_with_the_reader(folder: Path, tmp_path: Path) -> None:
    record_audit(folder, audited(folder))
    archive = export_reader(folder, tmp_path / "reader.zip")
    installed = import_reader(archive, tmp_path / "shelf", "copy")
    assert load_card(installed).audit_verdict == "FAIL T3 on films"
    assert json.loads((installed / AUDIT_FILE).read_text(encoding="utf-8"))["headline"] == "Failed: T3"
