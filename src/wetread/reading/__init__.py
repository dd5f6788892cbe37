"""Images in, one Read record each out: the gate, the batch reader and the pictures beside a read."""

from __future__ import annotations

__all__: list[str] = []
