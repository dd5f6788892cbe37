"""Small pictures of films and of past cases, for pages; a case whose file has gone has none, and the page says so."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.errors import WetreadError

if TYPE_CHECKING:
    from wetread.reporting.facts import CasePicture
    from wetread.types import Image

__all__ = ["CASE_PX", "STRIP_PX", "CaseSpool", "case_picture", "small_picture"]

CASE_PX, STRIP_PX = 320, 200
"""Longest sides of a case on a page of its own and in a row below a film."""


def small_picture(image: Image, side: int) -> CasePicture:
    """Return ``image`` with sides of at most ``side`` pixels, as PNG."""
    from PIL import Image as Pillow

    from wetread.imaging import preview8
    from wetread.reporting.facts import CasePicture

    picture = Pillow.fromarray(preview8(image))
    picture.thumbnail((side, side), Pillow.Resampling.BOX, reducing_gap=None)
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=6)
    rows, columns = image.pixels.shape
    return CasePicture(data=target.getvalue(), rows=rows, columns=columns)


def case_picture(file: Path, side: int = CASE_PX) -> CasePicture | None:
    """Return a picture of a case; None where its file has gone or can no longer be read."""
    from wetread.imaging import load_image

    try:
        return small_picture(load_image(file), side)
    except WetreadError:
        return None


@dataclass(slots=True)
class CaseSpool:
    """Pictures of the cases of many reads, each made once and kept in ``folder`` until the pages are written."""

    folder: Path
    _sizes: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def take(self, file: str) -> CasePicture | None:
        """Return the picture of the case at ``file``."""
        from wetread.reporting.facts import CasePicture

        if file not in self._sizes:
            picture = case_picture(Path(file), STRIP_PX)
            self._sizes[file] = None if picture is None else (picture.rows, picture.columns)
            if picture is not None:
                self._place(file).write_bytes(picture.data)
            return picture
        size = self._sizes[file]
        if size is None:
            return None
        return CasePicture(data=self._place(file).read_bytes(), rows=size[0], columns=size[1])

    def _place(self, file: str) -> Path:
        return self.folder / f".case-{hashlib.sha256(file.encode()).hexdigest()[:24]}"
