"""How good a reader is, how sure that is, and which threshold was chosen without the test split."""

from __future__ import annotations

__all__: list[str] = []
