"""Reads the layer table of docs/architecture.md and the imports of a source tree, and compares them."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "wetread"


@dataclass(frozen=True)
class Layer:
    """One row of the table; ``modules`` are top-level names below the package."""

    name: str
    modules: frozenset[str]
    third_party: frozenset[str]


@dataclass(frozen=True)
class Import:
    """One import statement that runs: ``target`` is the dotted name it brings in."""

    source: str
    target: str
    line: int


def read_table(markdown: str) -> list[Layer]:
    """The rows of the table whose header begins with ``| layer | modules |``."""
    lines = iter(markdown.splitlines())
    for line in lines:
        if re.match(r"\|\s*layer\s*\|\s*modules\s*\|", line):
            next(lines)  # the rule below the header
            break
    layers = []
    for line in lines:
        if not line.startswith("|"):
            break
        name, modules, _, third_party = (cell.strip() for cell in line.strip().strip("|").split("|"))
        layers.append(Layer(name, frozenset(re.findall(r"`(\w+)`", modules)), frozenset(third_party.split())))
    return layers


def module_names(root: Path) -> dict[str, Path]:
    """Dotted name of each module below ``root``, which is the folder of the package."""
    names = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names[".".join((PACKAGE, *parts))] = path
    return names


def imports(root: Path) -> list[Import]:
    """Every import below ``root`` that can run, also those inside functions."""
    modules = module_names(root)
    found = []
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in _running(tree):
            for target in _targets(node, name, path.name == "__init__.py", modules):
                found.append(Import(name, target, node.lineno))
    return found


def _running(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _running(ast.Module([other], []))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            yield from _running(node)


def _targets(node: ast.Import | ast.ImportFrom, source: str, is_package: bool, modules: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = source.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, base]) if base else ".".join(parts)
    if base == PACKAGE and [alias.name for alias in node.names] == ["__version__"]:
        return []  # a constant of the distribution, free to all
    # `from package import module` brings in the module, not the package's own names
    deeper = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in modules else base for name in deeper]


def forbidden(root: Path, layers: Sequence[Layer]) -> list[str]:
    """Imports that the table does not allow, and modules that it does not name."""
    place = {module: number for number, layer in enumerate(layers) for module in layer.modules}
    wrong = []
    for name in module_names(root):
        if _top(name) not in place:
            wrong.append(f"{name} is in no row of the layer table")
    for item in imports(root):
        if _top(item.source) not in place:
            continue
        layer = layers[place[_top(item.source)]]
        first = item.target.split(".")[0]
        where = f"{item.source}:{item.line} imports {item.target}"
        if first == PACKAGE:
            if place.get(_top(item.target), len(layers)) > place[_top(item.source)]:
                wrong.append(f"{where}, which is above {layer.name}")
        elif first not in sys.stdlib_module_names and first not in layer.third_party:
            wrong.append(f"{where}, which {layer.name} may not use")
    return wrong


def _top(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def cycle(root: Path) -> list[str]:
    """The modules of one import cycle below ``root``, or nothing.

    A package's own ``__init__`` gathers names from its modules, so an edge from a module to the
    ``__init__`` of a package that holds it counts like any other.
    """
    graph: dict[str, set[str]] = {name: set() for name in module_names(root)}
    for item in imports(root):
        if item.target in graph and item.target != item.source:
            graph[item.source].add(item.target)
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []
