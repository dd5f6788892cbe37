"""Networks, reader bundles, and the one ``predict`` that everything else calls."""

from __future__ import annotations

__all__: list[str] = []
