"""Write ``openapi.json``, from which the pages' types are made: ``python web/schema.py`` after a change of the API.

The document is kept in the repository so that pages can be built where wetread itself is not installed, e.g. in the
isolated build of a wheel; a test fails when it is not what the service says.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

TARGET = Path(__file__).with_name("openapi.json")


def document() -> str:
    """The document, as text that differs only where the API does."""
    from wetread.service.app import build_app
    from wetread.service.context import open_service
    from wetread.settings import ServiceSettings, Settings

    with tempfile.TemporaryDirectory() as folder:
        service = open_service(Settings(service=ServiceSettings(root=Path(folder))))
        try:
            return json.dumps(build_app(service).openapi(), indent=1, sort_keys=True) + "\n"
        finally:
            service.close()


if __name__ == "__main__":
    TARGET.write_text(document(), encoding="utf-8")
