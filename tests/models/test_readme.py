"""The README says what the card says, and nothing else."""

from __future__ import annotations

from tests.models.support import card_for
from tests.models.test_card import YOUDEN
from wetread.models.card import MetricRow
from wetread.models.readme import card_readme
from wetread.types import Estimate


def test_the_readme_shows_figures_with_interval_and_n() -> None:
    rows = (
        MetricRow(name="auroc", split="test", estimate=Estimate(value=0.9, low=0.85, high=0.94, n=200)),
        MetricRow(
            name="f1", split="test", estimate=Estimate(value=0.8, n=5, note="too few cases"), operating_point="youden"
        ),
        MetricRow(name="kappa", split="test", estimate=Estimate(value=None, n=0, note="one class only")),
    )
    card = card_for(weights={"model.safetensors": "ab" * 32}, metrics=rows, operating_points=(YOUDEN,))
    page = card_readme(card)
    assert page.startswith("---\nlibrary_name: wetread\n")
    assert "license: apache-2.0" in page
    assert "| auroc | test | - | 0.900 (0.850 to 0.940), n=200 |" in page
    assert "| f1 | test | youden | 0.800 (too few cases), n=5 |" in page
    assert "| kappa | test | - | not available (one class only) |" in page
    assert "| youden | finding | 0.4000 | largest J | 0.500 (0.400 to 0.600), n=100 |" in page
    assert f"`{'ab' * 32}`" in page
    assert "**Research use only. Not a diagnosis.**" in page


def test_missing_limits_are_not_read_as_none() -> None:
    bare = card_for(weights={"model.safetensors": "ab"})
    assert "None recorded, which does not mean none exist." in card_readme(bare)
    known = bare.model_copy(update={"limits": ("Children only.",)})
    assert "- Children only." in card_readme(known)
    assert "None recorded" not in card_readme(known)
