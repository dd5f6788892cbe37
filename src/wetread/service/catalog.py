"""The readers that the service knows: their cards, their audits, and how far they are trusted in the worklist.

Cards are read from disk when their files change; no torch is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wetread.errors import WetreadError, expected
from wetread.models.bundle import AUDIT_FILE, find_reader, list_bundles, load_any_card
from wetread.models.card import Card, ReaderCard, SegmenterCard
from wetread.service.problems import Problem

__all__ = ["TRUST", "Catalog", "Entry", "normal_labels", "question_hash", "trust_in"]

TRUST = {"PASS": 1.0, "WARN": 0.9, "OPEN": 0.8, "NOT": 0.8, "FAIL": 0.5}
"""First word of an audit's verdict -> what a probability of that reader is multiplied with to order the worklist."""

_NORMAL = frozenset({"normal", "no finding", "no_finding", "negative", "healthy"})


@dataclass(frozen=True)
class Entry:
    """A reader or segmenter: where it lies and its card."""

    folder: Path
    card: Card

    @property
    def audit(self) -> dict[str, Any] | None:
        """Its last audit, if one lies beside the card."""
        path = self.folder / AUDIT_FILE
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found


class Catalog:
    """The readers on the given shelves, and those that are named by folder.

    ``rules``: those that routing rules name, which may be missing until a study comes.
    """

    def __init__(self, shelves: tuple[Path, ...], named: tuple[str, ...] = (), rules: tuple[str, ...] = ()) -> None:
        self._shelves = shelves
        self._named, self._rules = named, rules
        self._cards: dict[Path, tuple[float, Card]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Entry]:
        """All readers and segmenters, by name."""
        found = {folder: Entry(folder, card) for folder, card in list_bundles(self._shelves)}
        for name in self._named:
            entry = self._at(find_reader(name, self._shelves))
            found.setdefault(entry.folder, entry)
        for name in self._rules:
            with contextlib.suppress(WetreadError):
                entry = self._at(find_reader(name, self._shelves))
                found.setdefault(entry.folder, entry)
        return sorted(found.values(), key=lambda entry: entry.card.name)

    def find(self, name: str) -> Entry:
        """The reader or segmenter of that name; a folder only where the settings name it.

        Raises:
            Problem: ``not_found``.
        """
        if name in (*self._named, *self._rules):
            return self._at(find_reader(name, self._shelves))
        for entry in self.entries():
            if name in (entry.card.name, entry.folder.name):
                return entry
        raise Problem("not_found", "No reader of that name.", "Take a name from /api/v1/readers.")

    def reader(self, name: str) -> Entry:
        """A reader of single images.

        Raises:
            Problem: ``not_found``, or ``refused`` for a segmenter or a reader of whole studies.
        """
        entry = self.find(name)
        if not isinstance(entry.card, ReaderCard):
            raise Problem("refused", expected("a reader", "a segmenter", "").rstrip("; "), "Name a reader.")
        if entry.card.study is not None:
            message = "expected a reader of single images, got one of whole studies"
            raise Problem("refused", message, "Name a reader of images; `wetread read` takes the other.")
        return entry

    def card_of(self, entry: Entry) -> ReaderCard:
        """The card of an entry that :meth:`reader` gave."""
        assert isinstance(entry.card, ReaderCard)  # noqa: S101
        return entry.card

    def segmenter(self, name: str) -> Entry:
        """A segmenter.

        Raises:
            Problem: ``not_found``, or ``refused`` for a reader.
        """
        entry = self.find(name)
        if not isinstance(entry.card, SegmenterCard):
            raise Problem("refused", "expected a segmenter, got a reader", "Name a segmenter.")
        return entry

    def _at(self, folder: Path) -> Entry:
        stamp = (folder / "card.json").stat().st_mtime
        with self._lock:
            known = self._cards.get(folder)
            if known is None or known[0] != stamp:
                known = (stamp, load_any_card(folder))
                self._cards[folder] = known
        return Entry(folder, known[1])


def normal_labels(card: ReaderCard) -> tuple[str, ...]:
    """Labels whose presence is no reason to hurry."""
    return tuple(label for label in card.labels if label.lower() in _NORMAL)


def trust_in(verdict: str) -> float:
    """What a reader's verdict makes of its probabilities in the order of the worklist."""
    return TRUST.get(verdict.upper().split(" ")[0] if verdict else "NOT", TRUST["NOT"])


def question_hash(kind: str, sha256: str, parameters: dict[str, Any]) -> str:
    """One hash for what is asked of an image: the kind of result, the reader's weights, the parameters."""
    text = json.dumps([kind, sha256, parameters], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
