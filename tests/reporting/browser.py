"""A real browser for the tests of pages: screenshots, what a page says on its console, pictures for the docs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "DARK",
    "LIGHT",
    "LIMIT_S",
    "NEEDS_BROWSER",
    "UPDATING",
    "Pixels",
    "browse",
    "console_of",
    "keep",
    "pixels_of",
    "require_drawn",
    "shoot",
]

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
DARK, LIGHT = ("--blink-settings=preferredColorScheme=0",), ("--blink-settings=preferredColorScheme=1",)
LIMIT_S = 120
IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
UPDATING = os.environ.get("WETREAD_UPDATE_SCREENSHOTS") == "1"
"""Whether the pictures of the docs are written anew."""
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no browser here: apt-get install chromium")

Pixels = NDArray[np.uint8]
_STEP = 5
"""Levels of a colour that a coarse picture tells apart: not seen, and a third of the file is saved. 255 is one."""


def browse(folder: Path, html: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open the page, written below ``folder``, with a profile of its own."""
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True, cwd=folder)


def console_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the page said on its console: errors, warnings, refused styles and scripts."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def shoot(folder: Path, html: str, size: tuple[int, int], *flags: str) -> tuple[Path, list[str]]:
    """Return the screenshot's file and what the page said on its console."""
    file = folder / "shot.png"
    done = browse(folder, html, f"--screenshot={file}", f"--window-size={size[0]},{size[1]}", *flags)
    assert file.is_file(), done.stderr[-2000:]
    return file, console_of(done)


def pixels_of(file: Path) -> Pixels:
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def require_drawn(file: Path, size: tuple[int, int], flags: tuple[str, ...]) -> None:
    """A page of that size, drawn in full, on the paper that was wished for."""
    pixels = pixels_of(file)
    assert pixels.shape == (size[1], size[0], 3)
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 100  # text alone gives dozens of greys
    blank_rows = (pixels == pixels[:, :1]).all(axis=(1, 2)).mean()
    assert blank_rows < 0.5
    paper_is_light = int(pixels[-3, 3].astype(int).sum()) > 600
    assert paper_is_light == (flags == LIGHT)  # the wish for dark or light is heeded


def keep(file: Path, name: str, *, coarse: bool = False) -> None:
    """Put a screenshot among the pictures of the docs; ``coarse`` ones are smaller files."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    pixels = pixels_of(file)
    if coarse:
        pixels = (np.rint(pixels / _STEP) * _STEP).astype(np.uint8)
    Image.fromarray(pixels).save(IMAGES / f"report-{name}.png", optimize=True)
