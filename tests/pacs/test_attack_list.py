"""The attack list of the manual names tests that exist, and enough of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROW = re.compile(r"^\| (?P<attack>[^|]+) \| (?P<known>[^|]*) \| `(?P<test>[^`]+)` \|$")


def rows(repository: Path) -> list[tuple[str, str]]:
    lines = (repository / "docs" / "reference" / "attack-list.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| ") and not line.startswith("| attack |")]
    found = [ROW.match(line) for line in table]
    assert all(found), [line for line, one in zip(table, found, strict=True) if one is None]
    return [(one["test"], one["known"]) for one in found if one is not None]


def test_every_test_of_the_list_exists(repository: Path) -> None:
    missing = []
    for name, _ in rows(repository):
        path, _, case = name.partition("::")
        function, _, parameter = case.rstrip("]").partition("[")
        text = (repository / path).read_text(encoding="utf-8")
        known = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
        if function not in known or not _is_case(repository, text, parameter):
            missing.append(name)
    assert missing == []


def _is_case(repository: Path, text: str, parameter: str) -> bool:
    if not parameter or parameter.isdigit() or parameter in text:
        return True
    return f'"{parameter}"' in (repository / "benchmarks" / "bombs.py").read_text(encoding="utf-8")


def test_the_list_is_long_enough_and_says_how_many(repository: Path) -> None:
    found = rows(repository)
    assert len({name for name, _ in found}) == len(found)
    of_the_node = [name for name, _ in found if name.startswith("tests/pacs/")]
    assert len(of_the_node) >= 60
    assert sum(bool(known) for _, known in found) >= 30
    page = (repository / "docs" / "reference" / "attack-list.md").read_text(encoding="utf-8")
    assert f"{len(found)} tests." in page


def test_every_bomb_is_in_the_list(repository: Path) -> None:
    from benchmarks.bombs import BOMBS

    names = " ".join(name for name, _ in rows(repository))
    assert [bomb for bomb in BOMBS if f"[{bomb}]" not in names] == []
