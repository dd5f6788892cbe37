"""Colour pictures to luminance, and how coloured they are.

A colour picture is loaded, so that it can be looked at, and carries the share of its coloured
pixels, so that the gate can refuse it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["VISIBLE_CHROMA", "composite_over_black", "luminance", "ybr_to_rgb"]

VISIBLE_CHROMA = 16 / 255
"""Difference between the largest and the smallest of R, G, B from which a pixel counts as coloured.

JPEG moves the channels of a gray picture apart by a few levels of 255, a tinted photograph by 20 and more.
"""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of Y in ITU-R BT.601, which PS3.3 C.7.6.3.1.2 uses for YBR_FULL."""


def luminance(rgb: NDArray[Any], peak: float) -> tuple[NDArray[np.float32], float]:
    """Return luminance and the share of visibly coloured pixels.

    Args:
        rgb: Shape (rows, columns, 3), real, range [0, ``peak``].
        peak: The value that is white.

    Returns:
        float32 (rows, columns) in [0, 1], and a share in [0, 1]. Where R = G = B the luminance is
        that value exactly.
    """
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    scale = np.float32(1.0 / peak)
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.clip(np.multiply(red, scale, dtype=np.float32), 0, 1), 0.0
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    coloured = (highest - lowest) > VISIBLE_CHROMA * peak
    gray = np.multiply(red, _LUMA[0] * scale, dtype=np.float32)
    gray += np.multiply(green, _LUMA[1] * scale, dtype=np.float32)
    gray += np.multiply(blue, _LUMA[2] * scale, dtype=np.float32)
    return np.clip(gray, 0, 1, out=gray), float(coloured.mean())


def ybr_to_rgb(ybr: NDArray[Any], peak: float) -> NDArray[np.float32]:
    """Convert YBR_FULL to RGB: the inverse of the equations of PS3.3 C.7.6.3.1.2.

    Args:
        ybr: Shape (rows, columns, 3), range [0, ``peak``], chroma centred on ``(peak + 1) / 2``.
        peak: Largest value, 255 for 8 bits.

    Returns:
        float32 of the same shape, clipped to [0, ``peak``].
    """
    luma = ybr[..., 0].astype(np.float32)
    centre = np.float32((peak + 1) / 2)
    blue_difference, red_difference = ybr[..., 1] - centre, ybr[..., 2] - centre
    rgb = np.stack(
        [
            luma + np.float32(1.402) * red_difference,
            luma - np.float32(0.344136) * blue_difference - np.float32(0.714136) * red_difference,
            luma + np.float32(1.772) * blue_difference,
        ],
        axis=-1,
    )
    return np.asarray(np.clip(rgb, 0, peak), np.float32)


def composite_over_black(samples: NDArray[Any], alpha: NDArray[Any], peak: float) -> NDArray[np.float32]:
    """Return ``samples`` x ``alpha`` / ``peak``: the picture over a black background.

    Args:
        samples: Shape (rows, columns, n), not premultiplied.
        alpha: Shape (rows, columns), range [0, ``peak``].
        peak: The value of full opacity.
    """
    opacity = np.multiply(alpha, np.float32(1.0 / peak), dtype=np.float32)
    return np.asarray(samples.astype(np.float32) * opacity[..., None], np.float32)
