"""Contrast of the palette (WCAG 2.2, 1.4.3 and 1.4.11), computed from the style sheet itself."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = (files("wetread.reporting") / "templates" / "style.css").read_text(encoding="utf-8")
READABLE = 4.5
VISIBLE = 3.0
"""For the parts of a picture that carry meaning."""

TEXT_ON = [
    *((ink, back) for ink in ("ink", "ink-2") for back in ("paper", "card")),
    *((ink, f"{ink}-soft") for ink in ("accent", "positive", "negative", "warn", "block")),
    *((ink, "card") for ink in ("accent", "positive", "negative", "warn", "block")),
    ("ink", "warn-soft"),
    ("ink", "block-soft"),
    ("ink-2", "accent-soft"),
    ("ink", "negative-soft"),
    ("stage-ink", "stage"),
    ("stage-ink-2", "stage"),
]
MARK_ON = [("positive", "rule"), ("warn", "rule"), ("negative", "rule"), ("ink", "rule"), ("film-blue", "stage")]


def _palettes() -> dict[str, dict[str, str]]:
    blocks = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    ]
    light, dark, paper = blocks
    return {"light": light, "dark": light | dark, "print from dark": light | dark | paper}


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two sRGB colours, 1 to 21."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)  # the well-known near miss


@pytest.mark.parametrize("palette", _palettes())
@pytest.mark.parametrize(("ink", "back"), TEXT_ON)
def test_text_is_readable(palette: str, ink: str, back: str) -> None:
    colours = _palettes()[palette]
    assert contrast(colours[ink], colours[back]) >= READABLE


@pytest.mark.parametrize("palette", _palettes())
@pytest.mark.parametrize(("mark", "back"), MARK_ON)
def test_marks_are_visible(palette: str, mark: str, back: str) -> None:
    colours = _palettes()[palette]
    assert contrast(colours[mark], colours[back]) >= VISIBLE


def test_banner_text_is_readable() -> None:
    assert contrast("#ffffff", _palettes()["light"]["banner"]) >= READABLE
    assert contrast("#ffffff", "#8c1024") >= READABLE
    assert "background: #8c1024" in CSS


def test_focus_is_always_shown() -> None:
    assert ":focus-visible { outline: 3px solid" in CSS
    assert not re.search(r"outline:\s*(none|0)", CSS)
