"""The card: strict when read, exact when written again."""

from __future__ import annotations

import json

import pytest

from tests.models.support import card_for
from wetread.errors import BundleRefused
from wetread.models.card import ConformalSpec, GateSpec, MetricRow, parse_card
from wetread.types import Estimate, OperatingPoint

HALF = Estimate(value=0.5, low=0.4, high=0.6, n=100, method="wilson")
YOUDEN = OperatingPoint(
    name="youden", label="finding", threshold=0.4, rule="largest J", sensitivity=HALF, specificity=HALF
)
STRICT = YOUDEN.model_copy(update={"name": "sensitivity-0.95", "threshold": 0.1})


def test_a_card_survives_being_written_and_read() -> None:
    card = card_for(
        weights={"model.safetensors": "ab"},
        operating_points=(YOUDEN, STRICT),
        gate=GateSpec(limit=1.5, quantile=0.995, n=500, components=64, modalities=("CR", "DX")),
        conformal=ConformalSpec(
            alpha=0.1,
            rule="k-th smallest",
            cases="every image (20)",
            n={"normal": 12, "finding": 8},
            conditional={"normal": 0.1 + 0.2, "finding": None},
            marginal={"normal": 1 / 3, "finding": 1 / 3},
            notes=("too few",),
        ),
        metrics=(MetricRow(name="auroc", split="test", estimate=HALF),),
        training={"seed": 1, "rates": [0.1, 0.01]},
    )
    assert parse_card(card.model_dump_json(), "small") == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": "2"}, "schema_version: Input should be '1'"),
        ({"task": "regression"}, "task: Input should be"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
        ({"name": "../other"}, "name: String should match pattern"),
        ({"name": ""}, "name: String should match pattern"),
        ({"networks": 0}, "networks: Input should be greater than or equal to 1"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"input": {"height": 4, "width": 32}}, "input.height: Input should be greater than or equal to 8"),
        ({"input": {"height": 9999, "width": 32}}, "input.height: Input should be less than or equal to 4096"),
        ({"head": {"kind": "svm"}}, "head.kind: Input should be"),
        ({"labels": None}, "labels: "),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], message: str) -> None:
    document = json.loads(card_for().model_dump_json()) | change
    with pytest.raises(BundleRefused, match=f"expected a reader card in small, got {message}"):
        parse_card(json.dumps(document), "small")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "x"}'])
def test_text_that_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(BundleRefused, match=r"expected a reader card in small, got .*; export the reader again"):
        parse_card(text, "small")


def test_the_identity_quotes_the_first_network() -> None:
    card = card_for(weights={"model.safetensors": "aa", "model-2.safetensors": "bb"}, networks=2)
    assert card.sha256 == "aa"
    assert card.identity.model_dump() == {
        "name": "small",
        "version": "1",
        "sha256": "aa",
        "audit_verdict": "not audited",
    }


def test_operating_points_are_found_by_label_and_name() -> None:
    card = card_for(operating_points=(YOUDEN, STRICT))
    assert card.operating_point("finding") == YOUDEN
    assert card.operating_point("finding", "sensitivity-0.95") == STRICT
    assert card.operating_point("finding", "other") is None
    assert card.operating_point("other") is None
