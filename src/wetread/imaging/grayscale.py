"""From stored values to what should be seen: the grayscale pipeline of PS3.3 C.11 and PS3.4 N.2.

Decided here: a LUT goes before a rescale or window, of several the first is used, and a file
without either gets a percentile window. Integers of up to 16 bits go through a table of all
possible values, so the arithmetic is float64 at the price of one look-up for a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wetread.imaging import transforms
from wetread.imaging.header import Header
from wetread.imaging.pixels import Stored

__all__ = ["Lut", "Window", "display_values", "read_lut", "read_windows"]

_WINDOWS: dict[str, Callable[[NDArray[Any], float, float], NDArray[np.float64]]] = {
    "LINEAR": transforms.window_linear,
    "LINEAR_EXACT": transforms.window_linear_exact,
    "SIGMOID": transforms.window_sigmoid,
}


@dataclass(frozen=True, slots=True)
class Lut:
    """A lookup table of PS3.3 C.11.1 or C.11.2; ``bits`` as LUT Descriptor declares."""

    table: NDArray[np.int64]
    first: int
    bits: int


@dataclass(frozen=True, slots=True)
class Window:
    """Window Center and Width with the explanation that the file gives."""

    centre: float
    width: float
    explanation: str = ""


class _Levels:
    """All values that the frame can hold, and how to look pixels up in a table over them."""

    def __init__(self, stored: Stored) -> None:
        values = stored.values
        self._padding = stored.padding
        if values.dtype.itemsize <= 2:
            self._index = values.view(f"u{values.dtype.itemsize}")
            count = 1 << 8 * values.dtype.itemsize
            self.values = np.arange(count, dtype=self._index.dtype).view(values.dtype).astype(np.float64)
        else:
            found, inverse = np.unique(values, return_inverse=True)
            self._index = inverse.reshape(values.shape)
            self.values = found.astype(np.float64)

    def counts(self) -> NDArray[np.int64]:
        """How often each value occurs among the pixels that are not padding."""
        pixels = self._index.ravel() if self._padding is None else self._index[~self._padding]
        return np.bincount(pixels, minlength=len(self.values))

    def look_up(self, table: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the pixels through ``table``; padding becomes 0."""
        pixels: NDArray[np.float32] = np.take(table.astype(np.float32), self._index)
        if self._padding is not None:
            pixels[self._padding] = 0
        return pixels


def display_values(header: Header, stored: Stored, photometric: str) -> NDArray[np.float32]:
    """Return what the file asks to be shown: float32 (rows, columns) in [0, 1], padding 0.

    Modality LUT or rescale -> VOI LUT, window or percentile window -> inversion of MONOCHROME1.
    """
    levels = _Levels(stored)
    counts = levels.counts()
    modality = _modality(header, levels.values)
    shown = _voi(header, modality, counts)
    _check_shown(header, shown, counts)
    if photometric == "MONOCHROME1":
        shown = transforms.invert(shown)
        header.history.step("inversion", reason="MONOCHROME1")
    _check_presentation(header, photometric)
    return levels.look_up(shown)


def _modality(header: Header, values: NDArray[np.float64]) -> NDArray[np.float64]:
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    for lut in _luts(header, "ModalityLUTSequence"):
        if slope is not None:
            # PS3.3 C.11.1: either the sequence or the rescale, never both.
            header.history.ambiguous("Modality LUT Sequence beside Rescale Slope: the LUT was used")
        header.history.step("modality lut", entries=len(lut.table), first=lut.first, bits=lut.bits)
        return transforms.apply_lut(values, lut.table, _signed_first(lut, values))
    if slope is None and intercept is None:
        return values
    if slope is None or intercept is None or slope == 0:
        header.history.ambiguous(f"Rescale Slope {slope} with Rescale Intercept {intercept}: no rescale was used")
        return values
    header.history.step("rescale", slope=slope, intercept=intercept)
    return transforms.rescale(values, slope, intercept)


def _voi(header: Header, values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    windows = read_windows(header)
    luts = _luts(header, "VOILUTSequence")
    if luts:
        _name_unused(header, len(luts) - 1, windows)
        return _voi_lut(header, luts[0], values)
    usable = [window for window in windows if _is_usable(window, _voi_function(header))]
    if len(usable) < len(windows):
        header.history.ambiguous(f"{len(windows) - len(usable)} windows with an impossible width were left out")
    if not usable:
        return _percentile_window(header, values, counts)
    _name_unused(header, 0, usable[1:])
    function, window = _voi_function(header), usable[0]
    header.history.step("voi window", centre=window.centre, width=window.width, function=function)
    return _WINDOWS[function](values, window.centre, window.width)


def _voi_lut(header: Header, lut: Lut, values: NDArray[np.float64]) -> NDArray[np.float64]:
    highest = int(lut.table.max())
    bits = max(lut.bits, highest.bit_length())
    if bits > lut.bits:
        header.history.ambiguous(f"VOI LUT holds values beyond its {lut.bits} bits: {bits} bits were used")
    elif highest.bit_length() < bits:
        header.history.ambiguous(f"VOI LUT uses {highest.bit_length()} of its {bits} bits: shown as declared")
    header.history.step("voi lut", entries=len(lut.table), first=lut.first, bits=bits)
    # The output range of a VOI LUT is 0 to 2^bits - 1: PS3.3 C.11.2.1.1.
    return transforms.apply_lut(values, lut.table, _signed_first(lut, values)) / ((1 << bits) - 1)


def _percentile_window(header: Header, values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    if not counts.any():
        header.history.warn("every pixel is padding")
        return np.zeros_like(values)
    low, high = transforms.percentile_limits(counts, values)
    if low == high:  # 99 % of the pixels are alike: fall back to all of them, so that the rest is not lost
        low, high = float(values[counts > 0].min()), float(values[counts > 0].max())
    percentiles = list(transforms.PERCENTILES)
    header.history.step("percentile window", low=low, high=high, percentiles=percentiles)
    return transforms.ramp(values, low, high)


def _check_shown(header: Header, shown: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    present = counts > 0
    if np.count_nonzero(present) <= 1:
        header.history.warn("constant image: every pixel has the same value")
    elif np.ptp(shown[present]) == 0:
        header.history.ambiguous("the file's window or LUT shows every pixel alike")


def _check_presentation(header: Header, photometric: str) -> None:
    """PS3.3 C.8.11.3.1: MONOCHROME1 goes with INVERSE, MONOCHROME2 with IDENTITY."""
    shape = header.text("PresentationLUTShape")
    wanted = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}[photometric]
    if shape in ("INVERSE", "IDENTITY") and shape != wanted:
        header.history.ambiguous(
            f"Presentation LUT Shape {shape} contradicts {photometric}: the photometric interpretation was used"
        )


def read_windows(header: Header) -> list[Window]:
    """Return the windows that the file offers, in order; an unpaired centre or width is dropped."""
    centres, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if len(centres) != len(widths):
        header.history.ambiguous(f"{len(centres)} window centres with {len(widths)} widths: paired from the first on")
    names = header.value("WindowCenterWidthExplanation")
    named = [names] if isinstance(names, str) else [str(name) for name in names or ()]
    named += [""] * len(centres)
    return [Window(c, w, name) for c, w, name in zip(centres, widths, named, strict=False)]


def read_lut(item: Header) -> Lut | None:
    """Read LUT Descriptor and LUT Data (0028,3002/3006); None, and a note, if they are unusable."""
    descriptor = item.numbers("LUTDescriptor")
    data = _lut_entries(item)
    if len(descriptor) != 3 or data is None or data.size == 0:
        item.history.ambiguous("a LUT without usable descriptor or data was left out")
        return None
    entries = (int(descriptor[0]) & 0xFFFF) or 1 << 16  # 0 stands for 65536: PS3.3 C.11.1.1
    bits = int(descriptor[2])
    if data.size != entries and data.size == -(-entries // 2):
        data = np.ascontiguousarray(data.astype("<u2")).view(np.uint8)[:entries]  # 8 bit entries, two a word
    if data.size < entries:
        item.history.ambiguous(f"a LUT has {data.size} of its {entries} entries: the last one was repeated")
    if not 1 <= bits <= 16:
        item.history.ambiguous(f"a LUT declares {bits} bits: taken as 16")
        bits = 16
    return Lut(data[:entries].astype(np.int64), int(descriptor[1]), bits)


def _lut_entries(item: Header) -> NDArray[Any] | None:
    data = item.value("LUTData")
    if isinstance(data, bytes):
        big = item.dataset.original_encoding[1] is False
        return np.frombuffer(data[: len(data) // 2 * 2], ">u2" if big else "<u2")
    numbers = item.numbers("LUTData")
    return np.asarray(numbers).astype(np.int64) & 0xFFFF if numbers else None


def _luts(header: Header, keyword: str) -> list[Lut]:
    return [lut for lut in map(read_lut, header.items(keyword)) if lut is not None]


def _signed_first(lut: Lut, values: NDArray[np.float64]) -> int:
    """First value mapped, in the sign of the values: it is often written as unsigned."""
    return lut.first - (1 << 16) if lut.first > 0x7FFF and values.min() < 0 else lut.first


def _voi_function(header: Header) -> str:
    function = (header.text("VOILUTFunction") or "LINEAR").upper()
    if function not in _WINDOWS:
        header.history.ambiguous("unknown VOI LUT Function: LINEAR was used")
        return "LINEAR"
    return function


def _is_usable(window: Window, function: str) -> bool:
    return window.width >= 1 if function == "LINEAR" else window.width > 0


def _name_unused(header: Header, luts: int, windows: list[Window]) -> None:
    unused = [f"{w.centre:g}/{w.width:g}" + (f" {w.explanation[:32]}" if w.explanation else "") for w in windows]
    unused += ["VOI LUT"] * luts
    if unused:
        header.history.warn(f"not used, of what the file offers to be seen with: {', '.join(unused)}")
