"""The web service: what ``wetread serve`` and ``wetread worker`` run."""

from __future__ import annotations

__all__: list[str] = []
