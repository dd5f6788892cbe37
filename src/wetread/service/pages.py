"""The built pages of the workstation, as they lie in the package.

Decided here: the files are listed once at the start and only those are ever served, so that no address can reach
another file; texts are compressed once and kept; files below ``assets`` carry a hash of their content in their names
and may be kept by the browser for ever, the page itself never.
"""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi.responses import HTMLResponse, Response

from wetread.service.problems import Problem

__all__ = ["BUILD", "FOLDER", "Pages"]

FOLDER = Path(__file__).with_name("static")
"""Where ``npm run build`` in the folder ``web`` puts the pages."""

BUILD = "make setup"
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
_NOT_BUILT = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>wetread</title></head><body>
<h1>wetread</h1>
<p>The service runs, but the workstation's pages have not been built.</p>
<p>Build them with <code>{BUILD}</code>, or with <code>npm ci &amp;&amp; npm run build</code> in the folder
<code>web</code>, and start the service again. An installed package brings them along.</p>
<p>The API is described at <code>/api/v1/openapi.json</code>. Research use only.</p>
</body></html>
"""


@dataclass(frozen=True)
class _File:
    path: Path
    media_type: str

    @property
    def is_text(self) -> bool:
        return self.media_type.startswith("text/") or self.media_type in ("image/svg+xml", "application/json")


class Pages:
    """The pages in ``folder``; ``built`` is False where there are none."""

    def __init__(self, folder: Path = FOLDER) -> None:
        found = (path for path in sorted(folder.rglob("*")) if path.is_file()) if folder.is_dir() else ()
        self._files = {path.relative_to(folder).as_posix(): _File(path, _media_type(path)) for path in found}

    @property
    def built(self) -> bool:
        """Whether there is a page to show."""
        return "index.html" in self._files

    def front(self, accepted: str) -> Response:
        """The one page of the workstation; where it was not built, how to build it."""
        if not self.built:
            return HTMLResponse(_NOT_BUILT)
        return self._answer("index.html", accepted, "no-cache")

    def asset(self, name: str, accepted: str) -> Response:
        """A file below ``assets``. ``accepted``: the header Accept-Encoding.

        Raises:
            Problem: ``not_found``.
        """
        return self._answer(f"assets/{name}", accepted, _FOREVER)

    def _answer(self, name: str, accepted: str, keep: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise Problem("not_found", "No such page.")
        headers = {"Cache-Control": keep, "Vary": "Accept-Encoding"}
        if file.is_text and "gzip" in accepted:
            headers["Content-Encoding"] = "gzip"
            return Response(_compressed(file.path), media_type=file.media_type, headers=headers)
        return Response(file.path.read_bytes(), media_type=file.media_type, headers=headers)


@lru_cache(maxsize=256)
def _compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6, mtime=0)


def _media_type(path: Path) -> str:
    return _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
