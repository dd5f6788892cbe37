"""The command line: one module for each verb, loaded when that verb is typed."""

from __future__ import annotations

__all__: list[str] = []
