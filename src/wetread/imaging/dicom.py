"""A DICOM file to an Image: header, budget, pixels, grayscale or luminance, facts."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.errors import ImageRefused, UnsupportedImage, expected
from wetread.imaging.codecs import Layout
from wetread.imaging.colour import luminance, ybr_to_rgb
from wetread.imaging.facts import dicom_facts
from wetread.imaging.grayscale import display_values
from wetread.imaging.header import Header, quiet, read_header
from wetread.imaging.history import History
from wetread.imaging.pixels import Stored, read_layout, stored_values
from wetread.types import Image

__all__ = ["Reading", "dicom_shape", "load_dicom", "read_dicom"]

_CODEC_GIVES_RGB = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


class Reading:
    """One DICOM file with everything that was found on the way; the conformance report needs it."""

    def __init__(self, header: Header, layout: Layout, stored: Stored, image: Image) -> None:
        self.header = header
        self.layout = layout
        self.stored = stored
        self.image = image


def load_dicom(data: bytes, name: str, budget_bytes: int) -> Image:
    """Read a single-frame DICOM image held in memory.

    Args:
        data: The whole file.
        name: File name for facts and messages.
        budget_bytes: Limit on the decoded pixels.

    Raises:
        ImageRefused: Damaged, without pixels, too small, contradictory (and its subclasses
            UnsupportedImage: several frames, unknown codec; OverBudget).
    """
    return read_dicom(data, name, budget_bytes).image


def dicom_shape(data: bytes, name: str, budget_bytes: int) -> tuple[int, int]:
    """Return (rows, columns) of a single-frame image from its header. Raises as :func:`load_dicom`."""
    layout = read_layout(read_header(data, name, History(), budget_bytes), budget_bytes)
    return layout.rows, layout.columns


def read_dicom(data: bytes, name: str, budget_bytes: int) -> Reading:
    """Like :func:`load_dicom`, and keep the header and the stored values."""
    history = History()
    header = read_header(data, name, history, budget_bytes)
    try:
        layout = read_layout(header, budget_bytes)
        stored = stored_values(header, layout)
        pixels, colour = _shown(header, layout, stored)
        digest = hashlib.sha256(data).hexdigest()
        facts = dicom_facts(header, layout, sha256=digest, bits=stored.bits_stored, colour=colour)
    except (ImageRefused, MemoryError):
        raise
    except Exception:  # a damaged header can fail in any of pydicom's converters, numpy's views, ...
        cure = "the file is damaged: fetch it again"
        raise ImageRefused(expected("a DICOM image", f"contradictory contents in {name}", cure)) from None
    return Reading(header, layout, stored, Image(pixels, facts, history.steps))


def _shown(header: Header, layout: Layout, stored: Stored) -> tuple[NDArray[np.float32], float]:
    if layout.photometric in ("MONOCHROME1", "MONOCHROME2"):
        return display_values(header, stored, layout.photometric), 0.0
    rgb, peak = _rgb(header, layout, stored)
    gray, share = luminance(rgb, peak)
    header.history.step("luminance", of=layout.photometric, weights="ITU-R BT.601", coloured_share=round(share, 6))
    header.history.warn(f"colour image ({layout.photometric}) shown as its luminance")
    return gray, share


def _rgb(header: Header, layout: Layout, stored: Stored) -> tuple[NDArray[Any], float]:
    peak = float((1 << stored.bits_stored) - 1)
    if layout.photometric == "PALETTE COLOR":
        return _through_palette(header, stored)
    if layout.photometric in ("YBR_FULL", "YBR_FULL_422") and header.transfer_syntax not in _CODEC_GIVES_RGB:
        return ybr_to_rgb(stored.values, peak), peak
    return stored.values, peak


def _through_palette(header: Header, stored: Stored) -> tuple[NDArray[Any], float]:
    from pydicom.pixels.processing import apply_color_lut

    try:
        with quiet():
            rgb = apply_color_lut(stored.values, header.dataset)[..., :3]
    except Exception:  # missing or short tables
        cure = "convert it to MONOCHROME2"
        got = f"an unusable palette in {header.name}"
        raise UnsupportedImage(expected("a complete palette", got, cure)) from None
    return rgb, float(np.iinfo(rgb.dtype).max)
