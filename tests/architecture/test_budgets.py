"""Size, shape and declared surface of the code, and documents that cannot go stale."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture import budgets
from tests.architecture.budgets import Source


@pytest.fixture(scope="module")
def code(repository: Path) -> list[Source]:
    return budgets.sources(repository / "src" / "wetread")


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[Path]:
    git = shutil.which("git")
    if git is None or not (repository / ".git").exists():
        pytest.skip("not a git checkout: what is tracked is not known")
    done = subprocess.run([git, "-C", str(repository), "ls-files", "-z"], capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := repository / name).is_file()]


@pytest.fixture(scope="module")
def documents(repository: Path) -> dict[Path, str]:
    top = [repository / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    found = [*top, *sorted((repository / "docs").rglob("*.md"))]
    return {path: path.read_text(encoding="utf-8") for path in found}


def _planted(text: str, name: str = "low/a.py") -> list[Source]:
    return [Source(name, text, ast.parse(text))]


def _function(lines: int, docstring: str = "") -> str:
    return "def f():\n" + docstring + "    x = 1\n" * lines


def test_modules_are_short(code: list[Source]) -> None:
    assert not budgets.long_modules(code)


def test_a_long_module_is_found() -> None:
    assert not budgets.long_modules(_planted("x = 1\n" * 500))
    assert budgets.long_modules(_planted("x = 1\n" * 501)) == ["low/a.py: 501 lines"]


def test_functions_are_short(code: list[Source]) -> None:
    assert not budgets.long_functions(code)
    assert budgets.ninth_decile(code) <= budgets.BODY_LINES_NINE_IN_TEN


def test_a_long_function_is_found() -> None:
    docstring = '    """' + "word\n" * 30 + '    """\n'
    assert not budgets.long_functions(_planted(_function(60, docstring)))
    assert budgets.long_functions(_planted(_function(61, docstring))) == ["low/a.py:1 f: 61 lines"]
    many = [*_planted(_function(10)) * 8, *_planted(_function(50)) * 2]
    assert budgets.ninth_decile(many) > budgets.BODY_LINES_NINE_IN_TEN


def test_functions_take_few_parameters(code: list[Source]) -> None:
    assert not budgets.many_parameters(code)


def test_many_parameters_are_found() -> None:
    eight = "(a, b, c, d, *, e, f, g, h):\n    pass\n"
    assert budgets.many_parameters(_planted(f"def f{eight}")) == ["low/a.py:1 f: 8 parameters"]
    assert not budgets.many_parameters(_planted("class A:\n    def f(self, a, b, c, d, e, f, g):\n        pass\n"))
    assert not budgets.many_parameters(_planted(f"def command{eight}", "cli/read.py"))
    assert not budgets.many_parameters(_planted(f"@app.command()\ndef f{eight}", "cli/read.py"))
    assert budgets.many_parameters(_planted(f"def command{eight}", "low/read.py"))


def test_code_is_not_nested_deeply(code: list[Source]) -> None:
    assert not budgets.deep_nesting(code)


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("def f():\n for a in b:\n  if c:\n   with d:\n    pass\n", False),
        ("def f():\n for a in b:\n  if c:\n   with d:\n    while e:\n     pass\n", False),
        ("def f():\n for a in b:\n  if c:\n   with d:\n    while e:\n     if g:\n      pass\n", True),
        ("def f():\n for a in b:\n  try:\n   pass\n  except E:\n   if c:\n    if d:\n     pass\n", True),
        ("def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass\n elif d:\n  pass\n", False),
        ("def f():\n if a:\n  pass\n elif b:\n  if c:\n   if d:\n    if e:\n     pass\n", True),
        ("def f():\n if a:\n  if b:\n   def g():\n    if c:\n     if d:\n      pass\n", False),
    ],
)
def test_nesting_is_counted_as_a_person_sees_it(text: str, deep: bool) -> None:
    assert bool(budgets.deep_nesting(_planted(text))) == deep


def test_every_module_declares_its_surface(code: list[Source]) -> None:
    assert not budgets.undeclared(code)
    assert not budgets.undocumented(code)


def test_an_undeclared_surface_is_found() -> None:
    assert budgets.undeclared(_planted("x = 1\n")) == ["low/a.py: no __all__"]
    assert budgets.undeclared(_planted('__all__ = ["_x"]\n')) == ["low/a.py: private _x"]
    assert not budgets.undeclared(_planted('"""Says what."""\n'))
    assert not budgets.undeclared(_planted('__all__: list[str] = ["x", "__version__"]\n'))
    assert budgets.undocumented(_planted("x = 1\n")) == ["low/a.py"]


RULES = {
    "print": ("T201", 'print("x")\n'),
    "order of __all__": ("RUF022", '__all__ = ["b", "a"]\na = b = 1\n'),
    "missing name in __all__": ("F822", '__all__ = ["nowhere"]\n'),
    "complexity": (
        "C901",
        "def f(x):\n" + "".join(f"    if x == {i}:\n        return {i}\n" for i in range(10)) + "    return x\n",
    ),
    "parameters": ("PLR0913", "def f(a, b, c, d, e, f, g, h):\n    pass\n"),
    "shell": ("S602", 'import subprocess\nsubprocess.run("ls *", shell=True)\n'),
    "pickle": ("S301", 'import pickle\npickle.loads(b"")\n'),
    "docstring": ("D103", "def f():\n    pass\n"),
    "line length": ("E501", f"x = '{'a' * 120}'\n"),
}


@pytest.mark.parametrize("rule", RULES)
def test_ruff_finds_what_it_is_trusted_to_find(repository: Path, rule: str) -> None:
    code, text = RULES[rule]
    ruff = Path(sys.executable).with_name("ruff")
    command = [
        str(ruff),
        "check",
        "--no-cache",
        "--output-format=concise",
        "--stdin-filename=src/wetread/low/a.py",
        "-",
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=repository)
    assert done.returncode == 1, done.stderr
    assert code in done.stdout


def test_nothing_tracked_is_tied_to_a_place(repository: Path, tracked: list[Path]) -> None:
    texts = {}
    for path in tracked:
        data = path.read_bytes()
        if b"\0" not in data[:8192]:
            texts[path.relative_to(repository).as_posix()] = data.decode("utf-8", errors="replace")
    assert not budgets.tied_to_a_place(texts)


@pytest.mark.parametrize(
    "line",
    [
        "--index" + "-url http:" + "//10.0.0.1/simple",
        "uv = { url = 'https:" + "//pypi.example.org/simple' }",
        "x @ https:" + "//files.pythonhosted.org/packages/x.whl",
        "DATA = '/" + "work/shared/data'",
        "see /" + "home/someone/data",
        "PATH=/" + "root/.cache",
    ],
)
def test_a_planted_place_is_found(line: str) -> None:
    assert budgets.tied_to_a_place({"a.txt": f"first\n{line}\n"})[0].startswith("a.txt:2: ")


def test_relative_paths_and_plain_links_are_no_places() -> None:
    text = "../shared/data https://doi.org/10.1000/1 docs/work/a a/root/b ~/work/x $HOME/work/a --no-emit-index-url"
    assert not budgets.tied_to_a_place({"a": text})


def test_tracked_files_are_small(repository: Path, tracked: list[Path]) -> None:
    assert not budgets.heavy_files({path.relative_to(repository).as_posix(): path.stat().st_size for path in tracked})


def test_a_heavy_file_is_found() -> None:
    zoo = "src/wetread/models/zoo/a/model.safetensors"
    assert not budgets.heavy_files({"a": 1 << 20, zoo: 10 << 20})
    assert budgets.heavy_files({"a": (1 << 20) + 1024, zoo: (10 << 20) + 1024}) == [
        "a: 1025 KiB",
        f"{zoo}: 10241 KiB",
    ]


def test_documents_name_every_verb_and_setting(documents: dict[Path, str]) -> None:
    from wetread.cli.main import VERBS
    from wetread.settings import settings_table

    assert not budgets.unmentioned((f"wetread {verb}" for verb in VERBS), documents.values())
    assert not budgets.unmentioned((setting.key for setting in settings_table()), documents.values())
    assert not budgets.unmentioned((setting.environment for setting in settings_table()), documents.values())


def test_an_unmentioned_name_is_found() -> None:
    texts = ["Use `wetread read` and `paths.cache`."]
    assert not budgets.unmentioned(["wetread read", "paths.cache"], texts)
    assert budgets.unmentioned(["wetread rea", "paths.runs"], texts) == ["wetread rea", "paths.runs"]


def test_links_lead_somewhere(documents: dict[Path, str]) -> None:
    assert not budgets.broken_links(documents)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").touch()
    text = "[b](b.md#x) [c](c.md) [d](https://doi.org/1) [e](#here)"
    assert budgets.broken_links({tmp_path / "a.md": text}) == ["a.md: c.md"]


def test_documents_promise_nothing(documents: dict[Path, str]) -> None:
    assert not budgets.promises(documents)


def test_a_promise_is_found() -> None:
    assert budgets.promises({Path("a.md"): "It is " + "safe to use.\nsafetensors"}) == ["a.md:1: It is safe to use."]


def _problem(words: list[str]) -> str | None:
    """What the command line would say against ``words``, looking at names of verbs and flags alone."""
    from wetread.cli.main import VERBS, load_verb

    if not words or words[0] in ("VERB", "--help", "--version"):
        return None
    if words[0] not in VERBS:
        return f"no verb {words[0]}"
    command = load_verb(words[0])
    rest = words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"no command {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    known |= {"-h", "--help", "--debug"}
    unknown = [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
    return f"no flag {unknown[0]}" if unknown else None


def test_commands_in_documents_exist(documents: dict[Path, str]) -> None:
    found = budgets.commands(documents)
    assert len(found) > 10
    wrong = [(name, words, problem) for name, words in found if (problem := _problem(words))]
    assert not wrong


def test_a_stale_command_is_found() -> None:
    text = (
        "```sh\n$ wetread models lst\nwetread models list --jsn  # x\nwetread doctor \\\n  --json\n```\n"
        "Use `wetread fly`.\n"
    )
    found = [words for _, words in budgets.commands({Path("a.md"): text})]
    assert found == [["models", "lst"], ["models", "list", "--jsn"], ["doctor", "--json"], ["fly"]]
    assert [_problem(words) for words in found] == ["no command lst", "no flag --jsn", None, "no verb fly"]
