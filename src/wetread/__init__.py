"""wetread: train, audit and run readers of medical images. Research use, never a diagnosis.

>>> import wetread
>>> reader = wetread.load("chest-pneumonia")  # doctest: +SKIP
>>> reader.read("film.dcm")  # doctest: +SKIP

``import wetread`` imports nothing else: each name below is looked up when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wetread.api import LoadedReader, load, readers
    from wetread.errors import InputRefused, WetreadError
    from wetread.imaging import load_image
    from wetread.reading.read import ReadFailure, ReadResult
    from wetread.types import Image, Read

__all__ = [
    "Image",
    "InputRefused",
    "LoadedReader",
    "Read",
    "ReadFailure",
    "ReadResult",
    "WetreadError",
    "__version__",
    "load",
    "load_image",
    "readers",
]

__version__ = "0.1.0"

_HOMES = {
    "Image": "wetread.types",
    "InputRefused": "wetread.errors",
    "LoadedReader": "wetread.api",
    "Read": "wetread.types",
    "ReadFailure": "wetread.reading.feed",
    "ReadResult": "wetread.reading.read",
    "WetreadError": "wetread.errors",
    "load": "wetread.api",
    "load_image": "wetread.imaging",
    "readers": "wetread.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, and keep it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wetread' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
