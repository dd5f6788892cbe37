"""The verdict on the card: every read, report and export of the reader carries it until the reader is audited anew."""

from __future__ import annotations

from pathlib import Path

from wetread.audit.result import AuditResult
from wetread.errors import BundleRefused, expected
from wetread.models.bundle import AUDIT_FILE, load_card
from wetread.models.card import ReaderCard
from wetread.models.readme import card_readme
from wetread.provenance import atomic_file

__all__ = ["record_audit"]


def record_audit(folder: Path, result: AuditResult) -> ReaderCard:
    """Write verdict and heat map status into the card of the reader in ``folder``, and the audit beside it.

    Raises:
        BundleRefused: another reader than the one that was audited.
        WetreadError: the folder may not be written.
    """
    card = load_card(folder)
    if card.sha256 != result.reader.sha256:
        raise BundleRefused(
            expected(
                f"the audited reader, sha256 {result.reader.sha256[:12]}…",
                f"another, {card.sha256[:12]}…",
                "audit it anew",
            )
        )
    judged = card.model_copy(
        update={"audit_verdict": result.verdict, "heat_maps": {**card.heat_maps, **result.heat_maps}}
    )
    written = {
        AUDIT_FILE: result.model_dump_json(indent=2),
        "README.md": card_readme(judged),
        "card.json": judged.model_dump_json(indent=2),
    }
    for name, text in written.items():
        with atomic_file(folder / name) as part:
            part.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return judged
