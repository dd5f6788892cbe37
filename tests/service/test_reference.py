"""The reference page of the API, and the names that are written down twice."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from fastapi.testclient import TestClient

from tests.service import test_api
from wetread.service.app import build_app
from wetread.service.context import Service
from wetread.service.reference import api_page

client = test_api.client


def test_the_reference_page_is_current(service: Service, repository: Path) -> None:
    page = repository / "docs" / "reference" / "api.md"
    made = api_page(build_app(service))
    assert page.read_text(encoding="utf-8") == made, "run python docs/generate.py"


def test_the_methods_are_those_that_there_are() -> None:
    from wetread.explain.base import METHODS, Method
    from wetread.service import methods

    assert methods.METHODS == METHODS
    assert len(get_args(Method)) > 0


def test_readers_come_with_their_cards(client: TestClient) -> None:
    found = {one["name"]: one for one in client.get("/api/v1/readers").json()}
    assert found["chest-pneumonia"]["kind"] == "reader"
    assert found["lungs"]["kind"] == "segmenter"
    one = client.get("/api/v1/readers/chest-pneumonia").json()
    assert one["card"]["name"] == "chest-pneumonia"
    assert test_api.error_of(client.get("/api/v1/readers/none")) == (404, "not_found")
