"""The names of the ways to explain, without the torch that making them needs; a test holds them to the real list."""

from __future__ import annotations

__all__ = ["METHODS"]

METHODS = (
    "cam",
    "gradcam",
    "gradcam++",
    "hirescam",
    "gradient-x-input",
    "smoothgrad",
    "integrated-gradients",
    "gradient-shap",
    "occlusion",
    "rise",
    "lime",
)
