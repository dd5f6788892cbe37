"""The Python API: ``wetread.load("chest-pneumonia").read("film.dcm")``.

A :class:`LoadedReader` is a reader with the options it reads with; it gives the same
:class:`~wetread.types.Read` as the command line, to the last digit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wetread.defaults import DEFAULT_READER
from wetread.errors import ImageRefused, UsageError, expected
from wetread.models.bundle import find_reader, list_readers, load_reader
from wetread.models.card import ReaderCard
from wetread.reading.feed import ReadFailure, find_sources
from wetread.reading.read import ReadOptions, ReadResult, check_options, read_image, read_images
from wetread.settings import load_settings
from wetread.types import Image, Read

if TYPE_CHECKING:
    from wetread.explain.base import Explanation, Method
    from wetread.models.predict import Reader

__all__ = ["LoadedReader", "load", "readers"]

PathLike = str | os.PathLike[str]


def load(name: PathLike = DEFAULT_READER, **options: Any) -> LoadedReader:
    """Load a reader by name or folder. ``options`` are fields of :class:`~wetread.reading.read.ReadOptions`.

    Sets the thread count and allocator of torch for this process, as the command line does.

    Raises:
        BundleRefused: no such reader, or a damaged one.
        UsageError: an unknown option, or one that does not fit the reader.
    """
    from wetread.runtime import prepare_torch

    settings = load_settings()
    prepare_torch(settings.runtime.threads)
    chosen = _options({"budget_bytes": settings.imaging.budget_bytes, **options})
    reader = load_reader(find_reader(Path(name) if not isinstance(name, str) else name, [settings.paths.readers]))
    check_options(reader, chosen)
    return LoadedReader(reader, chosen)


def readers() -> list[ReaderCard]:
    """Return the cards of all readers that :func:`load` knows by name; imports no torch."""
    return [card for _, card in list_readers([load_settings().paths.readers])]


def _options(given: dict[str, Any]) -> ReadOptions:
    unknown = sorted(set(given) - set(ReadOptions.__dataclass_fields__))
    if unknown:
        known = ", ".join(ReadOptions.__dataclass_fields__)
        raise UsageError(expected(f"options among {known}", unknown[0], "correct the spelling"))
    return ReadOptions(**given)


@dataclass(frozen=True, repr=False)
class LoadedReader:
    """A reader in memory and the options it reads with."""

    reader: Reader
    options: ReadOptions

    @property
    def card(self) -> ReaderCard:
        """All that is known of the reader: data, operating points, figures, limits."""
        return self.reader.card

    def with_options(self, **changes: Any) -> LoadedReader:
        """Return the same reader with other options, e.g. ``operating_point="sensitivity=0.95"``."""
        unchanged = {name: getattr(self.options, name) for name in ReadOptions.__dataclass_fields__}
        chosen = _options({**unchanged, **changes})
        check_options(self.reader, chosen)
        return replace(self, options=chosen)

    def read(self, image: PathLike | Image) -> Read:
        """Read one image: a path, or an :class:`~wetread.types.Image` in memory.

        An image that the gate refuses gives a Read with its reasons and without probability.

        Raises:
            ImageRefused: the file cannot be read.
        """
        if isinstance(image, Image):
            return read_image(self.reader, image, self.options)
        result = next(read_images(self.reader, [Path(image)], replace(self.options, pictures=False)))
        if isinstance(result, ReadFailure):
            raise ImageRefused(result.message)
        return result.read

    def read_many(self, paths: Iterable[PathLike] | PathLike) -> Iterator[ReadResult | ReadFailure]:
        """Read files and folders (searched to any depth), in order, while decoding ahead.

        A file that cannot be read gives a :class:`~wetread.reading.feed.ReadFailure` in its place.

        Raises:
            ImageRefused: a path does not exist, or a folder holds no image.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        return read_images(self.reader, find_sources([Path(path) for path in given]), self.options)

    def explain(self, image: PathLike | Image, label: str | None = None, method: Method | None = None) -> Explanation:
        """Return the heat map of one label (default: the first) by any method, whatever the gate and the score say.

        Raises:
            ImageRefused: the file cannot be read.
            UsageError: unknown label or method.
            ExplanationFailed: no map can be made.
        """
        from wetread.errors import ExplanationFailed
        from wetread.explain.base import Target
        from wetread.explain.dispatch import explain_images
        from wetread.imaging import load_image

        loaded = image if isinstance(image, Image) else load_image(image, budget_bytes=self.options.budget_bytes)
        masks = self.reader.organ_masks([loaded])
        batch = self.reader.prepare([loaded], masks)
        target = Target(label or self.reader.labels[0], method or self.options.method)  # type: ignore[arg-type]
        rows, columns = loaded.pixels.shape
        forward = self.reader.forward(batch)
        (found,) = explain_images(self.reader, forward, target, [(rows, columns)], batch, self.reader.windows(masks))
        if isinstance(found, ExplanationFailed):
            raise found
        return found

    def __repr__(self) -> str:
        card = self.card
        labels = ", ".join(card.labels)
        point = self.options.operating_point or card.default_operating_point
        return (
            f"<wetread reader {card.name} {card.version}: {labels} ({card.task}), {card.architecture} "
            f"{card.input.height}x{card.input.width}, operating point {point}, {card.audit_verdict}; "
            "research use only>"
        )
