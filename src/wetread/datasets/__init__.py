"""Tables of images: import, check, split; and synthetic studies."""

from __future__ import annotations

__all__: list[str] = []
