"""Heat maps: what raised the score of a label, and where, by many methods under one contract."""

from __future__ import annotations

from wetread.explain.base import CAM_METHODS, METHODS, Explanation, Method, Options, RawMap, Target
from wetread.explain.cam import explain, explain_batch
from wetread.explain.dispatch import explain_images
from wetread.explain.localise import boxes_of

__all__ = [
    "CAM_METHODS",
    "METHODS",
    "Explanation",
    "Method",
    "Options",
    "RawMap",
    "Target",
    "boxes_of",
    "explain",
    "explain_batch",
    "explain_images",
]
