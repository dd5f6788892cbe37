"""Pages of trust as a person meets them: the audit that ships with a reader, and a comparison of two."""

from __future__ import annotations

from functools import cache

from tests.reporting import examples
from wetread.audit.result import AuditResult
from wetread.cli.compare_report import verdict_words
from wetread.evaluation.plots import confusion_plot
from wetread.models.bundle import AUDIT_FILE, ZOO
from wetread.reporting.html import render_audit, render_compare
from wetread.training.grid import GridRow

__all__ = ["audit_page", "compare_page", "shipped_audit"]

VERDICTS = (("plain", "none", "FAIL T3 on films test"), ("guided", "mask", "WARN on films test"))
"""Name, guide and audit verdict of the readers compared."""


@cache
def shipped_audit() -> AuditResult:
    """The audit of the shipped reader of whole films; it is a real one."""
    return AuditResult.model_validate_json((ZOO / "chest-pneumonia" / AUDIT_FILE).read_text(encoding="utf-8"))


@cache
def audit_page() -> str:
    """Its page without the films that it showed: no picture of a patient ships."""
    result = shipped_audit()
    lines = tuple(line.model_copy(update={"examples": ()}) for line in result.lines)
    return render_audit(result.model_copy(update={"lines": lines}), {})


@cache
def compare_page() -> str:
    """Two readers side by side, the second of them better; neither exists."""
    result, _, against = examples.evaluation()
    assert result.confusion is not None
    label = result.labels[0]
    metrics = label.operating_points[0].metrics
    rows = [
        GridRow(
            name=name,
            network="tf_efficientnet_lite0",
            guide=guide,
            seed=0,
            folder=name,
            accuracy=metrics["accuracy"],
            balanced_accuracy=metrics["balanced_accuracy"],
            auroc=label.metrics["auroc"],
            parameters=3_400_000,
            training_s=1320.0,
            images_per_s=41.0,
            audit_verdict=verdict,
            result=result,
        )
        for name, guide, verdict in VERDICTS
    ]
    words = {"plain": verdict_words(None, "plain"), "guided": verdict_words(against, "plain")}
    return render_compare(
        "films", rows, words, {row.name: confusion_plot(result.confusion, row.name) for row in rows}, {}
    )
