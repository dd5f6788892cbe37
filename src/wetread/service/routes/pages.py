"""The pages of the workstation: one document and its files; all data comes through the API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from wetread.service.pages import Pages

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.get("/")
def front_page(request: Request) -> Response:
    """The workstation."""
    return _pages(request).front(request.headers.get("Accept-Encoding", ""))


@router.get("/assets/{name:path}")
def asset(name: str, request: Request) -> Response:
    """A script, style, font or codec of the workstation."""
    return _pages(request).asset(name, request.headers.get("Accept-Encoding", ""))


def _pages(request: Request) -> Pages:
    pages: Pages = request.app.state.pages
    return pages
