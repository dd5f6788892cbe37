"""Who may import whom: the table of docs/architecture.md against the code, and against planted breaches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.layers import Layer, cycle, forbidden, imports, read_table

TABLE = """
| layer | modules | decides | third party |
|---|---|---|---|
| core | `errors` | a | numpy |
| low | `low` | b | numpy scipy |
| high | `high` | c | |
"""


@pytest.fixture
def layers(repository: Path) -> list[Layer]:
    return read_table((repository / "docs" / "architecture.md").read_text(encoding="utf-8"))


def test_the_code_keeps_the_table(repository: Path, layers: list[Layer]) -> None:
    assert not forbidden(repository / "src" / "wetread", layers)


def test_the_code_has_no_import_cycle(repository: Path) -> None:
    assert not cycle(repository / "src" / "wetread")


def test_the_table_is_the_order_of_the_design(layers: list[Layer]) -> None:
    order = (
        "core imaging deid datasets models evaluation training explain retrieval audit annotate reading "
        "reporting pacs service cluster api cli"
    )
    assert " ".join(layer.name for layer in layers) == order


def test_the_parser_reads_rows_as_written() -> None:
    rows = read_table(TABLE)
    assert [layer.name for layer in rows] == ["core", "low", "high"]
    assert rows[1] == Layer("low", frozenset({"low"}), frozenset({"numpy", "scipy"}))
    assert rows[2].third_party == frozenset()


def _plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"errors.py": "", "low/__init__.py": "", "high/__init__.py": "", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CLEAN = {
    "low/a.py": "import os, scipy.stats\nfrom wetread import __version__\nfrom . import b\n",
    "low/e.py": "from wetread.errors import X\n",
    "low/b.py": "import numpy as np\n",
    "high/c.py": "from typing import TYPE_CHECKING\nfrom wetread.low import a\nif TYPE_CHECKING:\n    import torch\n",
}


def test_a_clean_tree_passes(tmp_path: Path) -> None:
    root = _plant(tmp_path, CLEAN)
    assert not forbidden(root, read_table(TABLE))
    assert not cycle(root)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("low/a.py", "from wetread.high import c", "wetread.low.a:1 imports wetread.high.c, which is above low"),
        ("low/a.py", "from wetread.high.c import X", "wetread.low.a:1 imports wetread.high.c, which is above low"),
        ("low/a.py", "import wetread.high.c", "wetread.low.a:1 imports wetread.high.c, which is above low"),
        ("low/a.py", "from ..high import c", "wetread.low.a:1 imports wetread.high.c, which is above low"),
        ("low/__init__.py", "from ..high import c", "wetread.low:1 imports wetread.high.c, which is above low"),
        ("low/a.py", "def f():\n    from wetread.high import c", "wetread.low.a:2 imports wetread.high.c"),
        ("low/a.py", "try:\n    import torch\nexcept ImportError:\n    pass", "imports torch, which low may not use"),
        ("high/c.py", "import numpy.linalg", "wetread.high.c:1 imports numpy.linalg, which high may not use"),
        ("other/d.py", "", "wetread.other.d is in no row of the layer table"),
        ("stray.py", "", "wetread.stray is in no row of the layer table"),
        ("low/a.py", "import wetread", "wetread.low.a:1 imports wetread, which is above low"),
    ],
)
def test_a_planted_breach_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    root = _plant(tmp_path, {**CLEAN, file: text})
    assert any(complaint in line for line in forbidden(root, read_table(TABLE)))


def test_the_other_branch_of_type_checking_runs(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    import torch\nelse:\n    import ray\n"
    root = _plant(tmp_path, {**CLEAN, "low/a.py": text})
    assert [item.target for item in imports(root) if item.source == "wetread.low.a"] == ["ray"]


@pytest.mark.parametrize(
    "files",
    [
        {"low/a.py": "from wetread.low import b", "low/b.py": "from . import a"},
        {"low/a.py": "from wetread.low.b import X", "low/b.py": "def f():\n    from wetread.low.a import Y"},
        {"low/__init__.py": "from wetread.low.a import X", "low/a.py": "from wetread.low import X"},
    ],
)
def test_a_planted_cycle_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    assert "wetread.low.a" in cycle(_plant(tmp_path, files))


HEAVY = {"torch", "timm", "lightning", "matplotlib", "pandas", "sklearn", "scipy", "cleanvision", "numpy", "rich"}


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], HEAVY | {"typer", "pydantic"}),
        (["--version"], HEAVY | {"typer", "pydantic"}),
        (["models", "--help"], HEAVY),
        (["models", "list"], HEAVY - {"rich", "numpy"}),
    ],
)
def test_what_a_light_command_does_not_import(words: list[str], heavy: set[str]) -> None:
    code = (
        f"import sys; from wetread.cli.main import run; code = run({words!r});"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
