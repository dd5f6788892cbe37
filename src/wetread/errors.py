"""The one exception tree, and the exit code that the command line gives for each branch.

::

    WetreadError                      exit 1   a run failed
    ├── UsageError                    exit 2   flags or settings do not make sense
    ├── InputRefused                  exit 3   what was handed in cannot be used
    │   ├── ImageRefused                       one image file: unreadable, over budget, not an image
    │   │   ├── UnsupportedImage               a valid file of a kind that is not read (multi-frame, codec)
    │   │   └── OverBudget                     refused before decoding: it would need too much memory
    │   ├── DatasetRefused                     a manifest, folder layout or label column
    │   │   └── SplitRefused                   a split that leaks or cannot be made
    │   └── BundleRefused                      a reader bundle: schema, hash, pickle
    ├── ExplanationFailed             exit 1   a heat map that could not be made
    ├── StatisticRefused              exit 1   a number that would mislead (too few cases)
    ├── TrainingFailed                exit 1   training diverged or could not write its run
    ├── PeerUnreachable               exit 4   another system did not answer
    └── Interrupted                   exit 130 stopped by the user, checkpoint saved

Every message reads *expected X, got Y; do Z* and carries no patient data.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "BundleRefused",
    "DatasetRefused",
    "ExplanationFailed",
    "ImageRefused",
    "InputRefused",
    "Interrupted",
    "OverBudget",
    "PeerUnreachable",
    "SplitRefused",
    "StatisticRefused",
    "TrainingFailed",
    "UnsupportedImage",
    "UsageError",
    "WetreadError",
    "expected",
]


class WetreadError(Exception):
    """Base of every error that wetread raises on purpose."""

    exit_code = 1


class UsageError(WetreadError):
    """Flags, arguments or settings that do not make sense together."""

    exit_code = 2


class InputRefused(WetreadError):
    """Input that cannot be used; nothing was written."""

    exit_code = 3


class ImageRefused(InputRefused):
    """One image file that cannot be read as a radiograph."""


class UnsupportedImage(ImageRefused):
    """A well-formed file of a kind that is not read: multi-frame, unknown codec, animation."""


class OverBudget(ImageRefused):
    """A file whose decoded pixels would exceed the memory budget; refused before decoding."""


class DatasetRefused(InputRefused):
    """A manifest, folder layout or label column that cannot be used."""


class SplitRefused(DatasetRefused):
    """A split that leaks patients or images, or that cannot be made as asked."""


class BundleRefused(InputRefused):
    """A reader bundle with a wrong schema, a wrong hash, or a pickle in it."""


class ExplanationFailed(WetreadError):
    """A heat map that could not be made; never replaced by a blank one.

    ``details``: the figures that decided it, by name.
    """

    def __init__(self, message: str, details: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class StatisticRefused(WetreadError):
    """A statistic that would mislead, such as an interval from too few cases."""


class TrainingFailed(WetreadError):
    """A training run that diverged or could not write its results."""


class PeerUnreachable(WetreadError):
    """Another system (PACS, database, tracking server) did not answer."""

    exit_code = 4


class Interrupted(WetreadError):
    """Stopped by the user; a checkpoint was saved."""

    exit_code = 130


def expected(what: str, got: object, cure: str) -> str:
    """Return the message of the house: *expected X, got Y; do Z*."""
    return f"expected {what}, got {got}; {cure}"
