"""How large an image may be: checked from the header alone, before any pixel is decoded."""

from __future__ import annotations

from wetread.errors import ImageRefused, OverBudget, expected

__all__ = ["DEFAULT_BUDGET_BYTES", "MIN_SIDE_PX", "require_budget", "require_readable_size"]

DEFAULT_BUDGET_BYTES = 512 << 20
"""512 MiB: 134 million pixels, nine times the largest radiography detector in use."""

MIN_SIDE_PX = 16
"""Below 16 pixels a side nothing in a radiograph can be told apart."""

_RESULT_BYTES = 4
"""The image that is handed back is float32, so a pixel never costs less than this."""


def require_budget(
    name: str, shape: tuple[int, int], *, samples: int, frames: int, bits: int, budget_bytes: int
) -> None:
    """Refuse an image whose decoded pixels would exceed the budget.

    The cost is Rows x Columns x max(Samples x Frames x BitsAllocated / 8, 4) bytes: what the
    decoder writes, or the float32 image handed back, whichever is larger.

    Args:
        name: File name for the message.
        shape: Declared (rows, columns).
        samples: Samples per pixel.
        frames: Number of frames.
        bits: Bits allocated for a sample.
        budget_bytes: The limit.

    Raises:
        OverBudget: If the cost is above the limit.
    """
    rows, columns = shape
    need = rows * columns * max(_RESULT_BYTES, -(-samples * frames * bits // 8))
    if need > budget_bytes:
        got = (
            f"{columns} x {rows} pixels, {samples} samples, {frames} frames, {bits} bits "
            f"= {need / 2**20:,.0f} MiB in {name}"
        )
        cure = "reduce the image or raise the budget"
        raise OverBudget(expected(f"an image of at most {budget_bytes / 2**20:,.0f} MiB decoded", got, cure))


def require_readable_size(name: str, shape: tuple[int, int]) -> None:
    """Refuse an image with a side below :data:`MIN_SIDE_PX`.

    Raises:
        ImageRefused: If it is too small to read, or has no pixels at all.
    """
    rows, columns = shape
    if min(rows, columns) < MIN_SIDE_PX:
        what = f"an image of at least {MIN_SIDE_PX} x {MIN_SIDE_PX} pixels"
        got = f"{columns} x {rows} pixels in {name}"
        raise ImageRefused(expected(what, got, "too small to read: hand in the full image"))
