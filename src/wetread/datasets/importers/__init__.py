"""One module per layout of files on disk; :mod:`.registry` recognises and runs them."""

from __future__ import annotations

__all__: list[str] = []
