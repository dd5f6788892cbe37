"""Decoding ahead of the network: a few threads, a bounded queue, results in order.

A file that cannot be read becomes a recorded failure here and never ends a batch. Nothing in this
module needs torch, so decoding may start while torch is still being imported.
"""

from __future__ import annotations

import io
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from wetread.errors import UsageError, WetreadError, expected
from wetread.imaging import DEFAULT_BUDGET_BYTES, find_images, load_image, preview8
from wetread.reading.appearance import Appearance, look_at
from wetread.types import Image

__all__ = ["Feed", "Loaded", "ReadFailure", "Source", "film_png", "find_sources", "load_one"]

logger = logging.getLogger(__name__)

DECODE_THREADS = 2
"""Decoders release the GIL for part of their time only; more threads take cores from the network."""

FILM_SIDE_PX = 1024
"""Long side of the film in a report: a screen's worth, not the diagnostic original."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read and the name it gets in the results: its path below the folder handed in."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A file that could not be read: its name, the error's class and its message."""

    path: Path
    name: str
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """One decoded image with its appearance, how long that took, and the film as PNG if asked for."""

    source: Source
    image: Image
    appearance: Appearance
    load_ms: float
    film: bytes | None = None


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the files of ``paths`` (files and folders), each once, with names that tell them apart.

    Raises:
        ImageRefused: a path does not exist, or a folder has no image in it.
    """
    sources: dict[Path, Source] = {}
    for given in paths:
        for path in find_images([given]):
            below = path.relative_to(given).as_posix() if path != given else path.name
            folder = f"{given.name}/" if len(paths) > 1 and path != given and given.name else ""
            sources.setdefault(path, Source(path, folder + below))
    return list(sources.values())


def film_png(image: Image) -> bytes:
    """Return the whole image as a grey PNG of at most 1024 pixels a side."""
    from PIL import Image as PilImage

    picture = PilImage.fromarray(preview8(image))
    picture.thumbnail((FILM_SIDE_PX, FILM_SIDE_PX), PilImage.Resampling.BOX, reducing_gap=None)
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=3)  # 9 takes ten times as long for a few per cent
    return target.getvalue()


def load_one(source: Source, budget_bytes: int = DEFAULT_BUDGET_BYTES, film: bool = False) -> Loaded:
    """Decode and measure one file.

    Raises:
        ImageRefused: it cannot be read.
    """
    begin = time.perf_counter()
    image = load_image(source.path, budget_bytes=budget_bytes)
    if image.facts.name != source.name:
        image = replace(image, facts=image.facts.model_copy(update={"name": source.name}))
    load_ms = (time.perf_counter() - begin) * 1e3
    return Loaded(source, image, look_at(image.pixels), load_ms, film_png(image) if film else None)


def _load_or_record(source: Source, budget_bytes: int, film: bool) -> Loaded | ReadFailure:
    try:
        return load_one(source, budget_bytes, film)
    except WetreadError as error:
        return ReadFailure(source.path, source.name, type(error).__name__, str(error))
    except Exception as error:  # a decoder's own bug must cost one file, not the batch
        kind = type(error).__name__
        logger.warning("%s while decoding %s", kind, source.name)  # its text may quote the file
        message = expected("a readable image", f"{kind} while decoding {source.name}", "export it again")
        return ReadFailure(source.path, source.name, kind, message)


class Feed:
    """Iterate once over the decoded sources, in order; decoding starts with the constructor."""

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        ahead: int = 16,
        film: bool = False,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        if ahead < 1:
            raise UsageError(expected("at least 1 image ahead", ahead, "raise it"))
        self._waiting = iter(sources)
        self._arguments = (budget_bytes, film)
        self._pool = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="wetread-decode")
        self._queue: deque[Future[Loaded | ReadFailure]] = deque()
        for _ in range(ahead):
            self._submit()

    def _submit(self) -> None:
        source = next(self._waiting, None)
        if source is not None:
            self._queue.append(self._pool.submit(_load_or_record, source, *self._arguments))

    def __iter__(self) -> Iterator[Loaded | ReadFailure]:
        try:
            while self._queue:
                done = self._queue.popleft().result()
                self._submit()
                yield done
        finally:
            self.close()

    def close(self) -> None:
        """Drop what is not decoded yet."""
        self._pool.shutdown(wait=False, cancel_futures=True)
