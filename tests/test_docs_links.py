"""The pages of the project: every relative link and anchor exists, and so does every flag they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from wetread.cli.main import VERBS, load_verb

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md")])
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]\n]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of the links outside of code."""
    return _LINK.findall(_CODE.sub("", _FENCE.sub("", text)))


def anchors(text: str) -> set[str]:
    """Anchors that GitHub gives to the headings: lower case, no punctuation, dashes; repeated ones numbered."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number, base = 0, slug
        while slug in found:
            number += 1
            slug = f"{base}-{number}"
        found.add(slug)
    return found


def has_anchor(file: Path, anchor: str) -> bool:
    """Whether a page has the anchor; other files (source lines, pictures) are not looked into."""
    return file.suffix != ".md" or anchor in anchors(file.read_text(encoding="utf-8"))


def broken(page: Path) -> list[str]:
    """Relative links of ``page`` that lead nowhere."""
    wrong = []
    for target in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and not has_anchor(file, anchor)):
            wrong.append(target)
    return wrong


def commands(text: str) -> Iterator[list[str]]:
    """Words after ``wetread`` of each command that a console block prints; ends at a pipe or a comment."""
    for block in _CONSOLE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ wetread"):
                yield shlex.split(line.removeprefix("$ wetread"), comments=True)


def unknown(words: list[str]) -> list[str]:
    """Verbs and flags among ``words`` that the command line does not have."""
    if not words or words[0].startswith("-"):
        return [word for word in words if word not in ("--help", "--version", "--debug")]
    if words[0] not in VERBS:
        return words[:1]
    command: Any = load_verb(words[0])
    rest = words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    if getattr(command, "commands", None) and (not rest or not rest[0].startswith("-")):
        return rest[:1] or words
    known = {"--help", "-h", "--debug"} | {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    shown = rest[: next((i for i, word in enumerate(rest) if word in ("|", ">", "&&", ";")), len(rest))]
    return [word for word in shown if word.startswith("--") and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_printed_commands_exist(page: Path) -> None:
    found = {" ".join(words): unknown(words) for words in commands(page.read_text(encoding="utf-8"))}
    assert {line: wrong for line, wrong in found.items() if wrong} == {}


def test_there_are_pages_with_links_and_commands() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(links(text)) for text in texts) > 20
    assert sum(len(list(commands(text))) for text in texts) > 20


def test_a_broken_link_and_a_wrong_anchor_are_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# One *two*: `three`\n\n## Same\n\n## Same\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[gone](c.md) [b](b.md) [head](b.md#one-two-three) [second](b.md#same-1) [wrong](b.md#four) [here](#top)\n"
        "`[code](d.md)` [web](https://example.org/x)\n```text\n[fenced](e.md)\n```\n# Top\n![picture](f.png)\n"
    )
    assert broken(page) == ["c.md", "b.md#four", "f.png"]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("read film.dcm --out reads", []),
        ("train data --no-gate --epochs 3 | tee log", []),
        ("dataset import films --map patient=Id", []),
        ("reed film.dcm", ["reed"]),
        ("read film.dcm --ouput=reads", ["--ouput=reads"]),
        ("dataset divide films", ["divide"]),
        ("dataset split films --shares .7", ["--shares"]),
        ("--version", []),
        ("--verson", ["--verson"]),
    ],
)
def test_wrong_verbs_and_flags_are_found(line: str, wrong: list[str]) -> None:
    assert unknown(line.split()) == wrong


def test_commands_are_read_from_console_blocks_alone() -> None:
    text = (
        "```console\n$ wetread read a \\\n    --out b  # why\nwetread is printed here\n```\n```text\n$ wetread x\n```\n"
    )
    assert list(commands(text)) == [["read", "a", "--out", "b"]]
