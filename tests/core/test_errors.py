"""The exception tree and its exit codes are what the module docstring draws."""

from __future__ import annotations

import inspect
import re

import pytest

from wetread import errors
from wetread.errors import WetreadError, expected


def _classes() -> list[type[WetreadError]]:
    return [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, WetreadError)]


def test_docstring_draws_every_class_at_its_depth() -> None:
    drawing = errors.__doc__ or ""
    for cls in _classes():
        line = next((line for line in drawing.splitlines() if re.search(rf"\b{cls.__name__}\b", line)), None)
        assert line is not None, cls.__name__
        depth = cls.__mro__.index(WetreadError)
        assert line.index(cls.__name__) == 4 + 4 * depth, f"{cls.__name__} is drawn at another depth"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("WetreadError", 1),
        ("UsageError", 2),
        ("InputRefused", 3),
        ("OverBudget", 3),
        ("BundleRefused", 3),
        ("TrainingFailed", 1),
        ("StatisticRefused", 1),
        ("PeerUnreachable", 4),
        ("Interrupted", 130),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_message_grammar() -> None:
    assert expected("a folder", "a file", "name its folder") == "expected a folder, got a file; name its folder"
