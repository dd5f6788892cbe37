"""Facts in, one self-contained page out; pages never see a model."""

from __future__ import annotations

__all__: list[str] = []
