"""The conformance statement in the manual is the one that the code makes."""

from __future__ import annotations

from pathlib import Path

from wetread.pacs.conformance import conformance_statement


def test_the_statement_in_the_manual_is_what_the_code_says(repository: Path) -> None:
    written = (repository / "docs" / "dicom-conformance.md").read_text(encoding="utf-8")
    assert written == conformance_statement(), "run `python -m wetread.pacs.conformance > docs/dicom-conformance.md`"


def test_every_status_of_the_code_is_in_the_statement() -> None:
    text = conformance_statement()
    for status in ("0000", "B000", "0111", "A700", "A900", "C000", "0112", "0119", "0110", "0115"):
        assert f" {status}" in text
