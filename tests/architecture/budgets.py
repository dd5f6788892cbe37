"""Measures modules, functions, tracked files and documents against the budgets of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MODULE_LINES = 500
BODY_LINES = 60
BODY_LINES_NINE_IN_TEN = 30
NESTING = 3
PARAMETERS = 7
FILE_BYTES = 1 << 20
READER_BYTES = 10 << 20

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.Match)
"""What makes a reader keep a case in mind; `with` holds a resource and decides nothing."""


@dataclass(frozen=True)
class Source:
    """One parsed module."""

    name: str
    text: str
    tree: ast.Module

    @staticmethod
    def read(path: Path, root: Path) -> Source:
        text = path.read_text(encoding="utf-8")
        return Source(path.relative_to(root).as_posix(), text, ast.parse(text))

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


def sources(root: Path) -> list[Source]:
    return [Source.read(path, root) for path in sorted(root.rglob("*.py"))]


def long_modules(found: Iterable[Source]) -> list[str]:
    counts = {source.name: len(source.text.splitlines()) for source in found}
    return [f"{name}: {count} lines" for name, count in counts.items() if count > MODULE_LINES]


def body_lines(function: Function) -> int:
    """Lines of the body without its docstring; a function defined inside counts with its owner."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def long_functions(found: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{function.lineno} {function.name}: {body_lines(function)} lines"
        for source in found
        for function in source.functions()
        if body_lines(function) > BODY_LINES
    ]


def ninth_decile(found: Iterable[Source]) -> float:
    lengths = [body_lines(function) for source in found for function in source.functions()]
    return statistics.quantiles(lengths, n=10, method="inclusive")[-1]


def many_parameters(found: Iterable[Source]) -> list[str]:
    """Functions with too many parameters; a verb of the command line has one for each flag."""
    wrong = []
    for source in found:
        for function in source.functions():
            names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > PARAMETERS and not _is_verb(source, function):
                wrong.append(f"{source.name}:{function.lineno} {function.name}: {count} parameters")
    return wrong


def _is_verb(source: Source, function: Function) -> bool:
    decorated = any(ast.unparse(decorator).startswith("app.command") for decorator in function.decorator_list)
    return source.name.startswith("cli/") and (decorated or function.name == "command")


def deep_nesting(found: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{function.lineno} {function.name}: {depth} deep"
        for source in found
        for function in source.functions()
        if (depth := _depth(function.body)) > NESTING
    ]


def _depth(body: Iterable[ast.stmt]) -> int:
    deepest = 0
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            continue  # a function of its own
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        inner += [s for h in getattr(node, "handlers", []) + getattr(node, "cases", []) for s in h.body]
        # `elif` is an If in the else of an If, yet a person sees no new level
        alone = isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
        chained = node.orelse if isinstance(node, ast.If) and alone else []
        below = max(_depth(s for s in inner if s not in chained) + isinstance(node, _BLOCKS), _depth(chained))
        deepest = max(deepest, below)
    return deepest


def undeclared(found: Iterable[Source]) -> list[str]:
    """Modules without ``__all__``, and names in it that are private or not there."""
    wrong = []
    for source in found:
        declared = _declared(source.tree)
        if all(isinstance(node, ast.Expr) for node in source.tree.body):
            continue  # the docstring of a package, and nothing to declare
        if declared is None:
            wrong.append(f"{source.name}: no __all__")
            continue
        wrong += [f"{source.name}: private {name}" for name in declared if re.match(r"_[^_]", name)]
    return wrong


def _declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            value = getattr(node, "value", None)
            return [ast.literal_eval(item) for item in value.elts] if isinstance(value, ast.List) else []
    return None


def undocumented(found: Iterable[Source]) -> list[str]:
    """Modules whose docstring is missing or longer than it takes to say what is decided there."""
    return [source.name for source in found if not ast.get_docstring(source.tree)]


# The patterns are put together here so that this file does not hold what it looks for.
_SLASH = "/"
PLACES = {
    "an index address": re.compile(
        r"index-url[= ]+['\"]?https?:|https?://[\w.-]*(?:pypi|pythonhosted|registry|mirror)"
    ),
    "a machine path": re.compile(rf"(?<![\w.~$}}{{]){_SLASH}(?:root|work|Users|home{_SLASH}\w+){_SLASH}[\w.]"),
}


def tied_to_a_place(texts: Mapping[str, str]) -> list[str]:
    """Lines that hold an address of a package index or an absolute path of some machine."""
    return [
        f"{name}:{number}: {what}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PLACES.items()
        if pattern.search(line)
    ]


def heavy_files(sizes: Mapping[str, int]) -> list[str]:
    return [
        f"{name}: {size >> 10} KiB"
        for name, size in sizes.items()
        if size > (READER_BYTES if name.startswith("src/wetread/models/zoo/") else FILE_BYTES)
    ]


def unmentioned(names: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Names that none of the documents writes as code."""
    together = "\n".join(texts)
    return [name for name in names if not re.search(rf"[`\s]{re.escape(name)}[`\s|.,:]", together)]


def broken_links(documents: Mapping[Path, str]) -> list[str]:
    """Relative links of Markdown documents that lead nowhere."""
    return [
        f"{document.name}: {target}"
        for document, text in documents.items()
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
        if not (document.parent / target).exists()
    ]


def promises(documents: Mapping[Path, str]) -> list[str]:
    """Words that a research tool must not say of itself."""
    return [
        f"{document.name}:{number}: {line.strip()}"
        for document, text in documents.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"\b(?:safe|safely|cleared)\b", line, re.IGNORECASE)
    ]


def commands(documents: Mapping[Path, str]) -> list[tuple[str, list[str]]]:
    """(document, words) of each ``wetread ...`` line in the fenced blocks and code spans of documents."""
    found = []
    for document, text in documents.items():
        blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        joined = "\n".join(blocks).replace("\\\n", " ")
        lines = [line.split("  #")[0].strip().removeprefix("$ ") for line in joined.splitlines()]
        lines += re.findall(r"`(wetread [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        found += [(document.name, line.split()[1:]) for line in lines if line.startswith("wetread ")]
    return found
