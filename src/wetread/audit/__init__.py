"""Whether a reader and its data may be trusted: sixteen questions, each answered with figures and pictures."""

from __future__ import annotations

__all__: list[str] = []
