"""The reference page of the API, made from the OpenAPI document of the application."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from wetread.service.access import needs
from wetread.service.app import ROUTERS
from wetread.service.problems import CODES

__all__ = ["api_page"]

_HEAD = "<!-- Made from the OpenAPI document: see tests/service/test_reference.py. -->"
_INTRODUCTION = (
    "Everything but `/dicom-web` is below `/api/v1`; the OpenAPI 3.1 document, from which clients are made, is at "
    "`/api/v1/openapi.json`. Times are seconds since 1970 in UTC. A browser logs in with `POST /session` and sends "
    "its cookie, and with everything that changes something the header `X-CSRF-Token`; a program sends "
    "`Authorization: Bearer TOKEN`. A token needs the scope `read` to look, `write` for the rest, `admin` for what "
    "only an admin may do."
)
_EVENTS = (
    "Addresses that end in `/events` are server-sent events: `id` is the version of the state, so that a client that "
    "comes back with `Last-Event-ID` gets what it missed; the event `end` says that nothing more will come."
)


def api_page(app: FastAPI) -> str:
    """Markdown: every address with what it does, who may use it, what it takes and gives; then the error codes."""
    document = app.openapi()
    needed = {
        (method.lower(), getattr(route, "path", "")): needs(route)
        for router in ROUTERS
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
    }
    parts = ["# API of the service", _HEAD, _INTRODUCTION, _EVENTS]
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            access = needed.get((method, path))
            row = _row(method, path, operation, access.role if access else "anybody")
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(row)
    for tag, rows in groups.items():
        table = ["| address | for | takes | gives | what it does |", "|---|---|---|---|---|", *rows]
        parts.append(f"## {tag.capitalize()}\n\n" + "\n".join(table))
    codes = [f"| `{code}` | {status} | {hint} |" for code, (status, hint) in CODES.items()]
    shape = 'Every error is `{"error": {"code", "message", "hint", "request_id"}}`.'
    parts.append(f"## Errors\n\n{shape}\n\n" + "\n".join(["| code | status | usual hint |", "|---|---|---|", *codes]))
    return "\n\n".join(parts) + "\n"


def _row(method: str, path: str, operation: dict[str, Any], role: str) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    takes = [_name(one.get("schema", {})) for one in content.values()]
    takes += [f"`{one['name']}`" for one in operation.get("parameters", []) if one["in"] == "query"]
    gives = [
        _name(one.get("schema", {})) or kind
        for status, answer in operation["responses"].items()
        if status.startswith("2")
        for kind, one in answer.get("content", {}).items()
    ]
    what = " ".join(operation.get("description", "").split())
    address = f"`{method.upper()} {path.removeprefix('/api/v1')}`"
    return f"| {address} | {role} | {' '.join(takes)} | {', '.join(dict.fromkeys(gives))} | {what} |"


def _name(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("type") == "array":
        return f"list of {_name(schema.get('items', {}))}"
    return "form" if "properties" in schema else ""
