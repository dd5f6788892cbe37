"""The generated reference pages are those that the code gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate


@pytest.mark.parametrize("name", ["cli.md", "settings.md"])
def test_generated_page_is_current(repository: Path, name: str) -> None:
    written = (repository / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == generate.pages()[name], "run: python docs/generate.py"


def test_every_verb_and_every_command_below_it_is_in_the_page() -> None:
    page = generate.cli_page()
    for name in ("wetread read", "wetread dataset import", "wetread models import", "wetread demo"):
        assert f"`{name}`\n" in page
