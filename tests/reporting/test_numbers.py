"""Digits, worked by hand from the rounding rule."""

from __future__ import annotations

import pytest

from wetread.reporting import numbers
from wetread.types import Estimate

NARROW = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("half_width", "decimals"),
    [
        (0.012, 3),  # 12: two digits
        (0.0354, 3),  # 35: still two
        (0.0361, 2),  # 36: one
        (0.05, 2),
        (0.098, 2),  # rounds up to 0.10: two digits of that
        (0.3, 2),
        (0.4, 1),
        (2.0, 1),
        (50.0, 0),
        (0.0001, 3),  # never more than three
        (0.0, 3),
        (float("nan"), 3),
    ],
)
def test_half_width_decides_the_decimals(half_width: float, decimals: int) -> None:
    assert numbers.decimals_for(half_width) == decimals


@pytest.mark.parametrize(
    ("e", "text"),
    [
        (Estimate(value=0.95312, low=0.9411, high=0.9652, n=624), "0.953 (0.941–0.965)"),
        (Estimate(value=0.9531, low=0.90, high=1.0, n=40), "0.95 (0.90–1.00)"),
        (Estimate(value=0.5, low=0.1, high=0.9, n=5), "0.5 (0.1–0.9)"),
        (Estimate(value=-0.0401, low=-0.08, high=0.001, n=200), "−0.04 (−0.08 to 0.00)"),
        (Estimate(value=0.91234, n=0), "0.91"),
        (Estimate(value=0.91234, n=4), "0.9"),  # 1.96 * 0.5 / 2 = 0.49
        (Estimate(value=None, note="one class"), "—"),
        (None, "—"),
    ],
)
def test_estimate_has_no_more_digits_than_its_interval(e: Estimate | None, text: str) -> None:
    assert numbers.estimate(e) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.874, "87 %"), (0.0, "< 1 %"), (0.0099, "< 1 %"), (0.01, "1 %"), (0.996, "> 99 %"), (1.0, "> 99 %")],
)
def test_probability_is_never_written_as_certain(probability: float, text: str) -> None:
    assert numbers.percent(probability) == text.replace(" ", NARROW)


def test_probability_and_threshold_read_differently_when_they_differ() -> None:
    assert numbers.percent_beside(0.4306, 0.4311) == (f"43.06{NARROW}%", f"43.11{NARROW}%")
    assert numbers.percent_beside(0.87, 0.43) == (f"87{NARROW}%", f"43{NARROW}%")
    assert numbers.percent_beside(0.5, 0.5) == (f"50{NARROW}%", f"50{NARROW}%")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (True, "yes"),
        (3e-4, "0.0003"),
        (3e-5, "3e-05"),
        (-2.5, "−2.5"),
        (2047.5, "2047.5"),
        ((1, "a"), "1, a"),
        ({"centre": 40.0, "function": "LINEAR"}, "centre 40, function LINEAR"),
        ([], "—"),
    ],
)
def test_settings_are_written_for_people(value: object, text: str) -> None:
    assert numbers.plain(value) == text


@pytest.mark.parametrize(("ms", "text"), [(0.2, "< 1 ms"), (38.2, "38 ms"), (4200, "4.2 s"), (200_000, "3 min 20 s")])
def test_duration(ms: float, text: str) -> None:
    assert numbers.duration(ms).replace(NARROW, " ") == text


def test_counts_shares_and_p_values() -> None:
    assert numbers.count(5856) == "5856"
    assert numbers.count(112_120).replace(NARROW, " ") == "112 120"
    assert numbers.count(None) == "—"
    assert numbers.percent_share(1.0) == f"100{NARROW}%"
    assert numbers.percent_share(0.0806) == f"8.1{NARROW}%"
    assert numbers.p_value(0.0004) == f"<{NARROW}0.001"
    assert numbers.p_value(0.0361) == "0.036"
    assert numbers.p_value(None) == "—"
