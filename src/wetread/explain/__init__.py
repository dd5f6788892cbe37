"""Heat maps: what raised the score of a label, and where, from the network's own gradients."""

from __future__ import annotations

from wetread.explain.base import METHODS, Explanation, Method, Target
from wetread.explain.cam import explain, explain_batch
from wetread.explain.localise import boxes_of

__all__ = ["METHODS", "Explanation", "Method", "Target", "boxes_of", "explain", "explain_batch"]
