"""From a manifest to a reader bundle: features, losses, augmentation, fitting, baselines."""

from __future__ import annotations

__all__: list[str] = []
