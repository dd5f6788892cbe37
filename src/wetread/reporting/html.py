"""Facts in, one self-contained HTML page out.

Decided here: autoescape is on everywhere, style and script are inlined and are the only ones that
the page's Content-Security-Policy allows (by SHA-256), and nothing is ever loaded from outside.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wetread.audit.result import AuditResult
from wetread.datasets.check_result import CheckResult
from wetread.evaluation.result import ComparisonResult, EvaluationResult, HiddenResult
from wetread.reporting import numbers, words
from wetread.reporting.facts import OrganReport, OverlapReport, StudyReport, TrainingReport, Worklist, WorklistEntry

if TYPE_CHECKING:
    from wetread.evaluation.study import StudyEvaluation
    from wetread.training.grid import GridRow

__all__ = [
    "render_audit",
    "render_check",
    "render_compare",
    "render_evaluation",
    "render_index",
    "render_organs",
    "render_overlap",
    "render_page",
    "render_read",
    "render_training",
    "template_source",
]

DISCLAIMER = "Research use only. Not a diagnosis."
_NOT_AUDITED = "not audited"
_FILTERS: dict[str, Any] = {
    "answer_class": words.answer_class,
    "audit_groups": words.audit_groups,
    "by_severity": words.by_severity,
    "by_urgency": words.by_urgency,
    "case_tags": words.case_tags,
    "count": numbers.count,
    "data_uri": words.data_uri,
    "distance": numbers.distance,
    "duration": numbers.duration,
    "estimate_value": numbers.estimate_value,
    "film_words": words.film_words,
    "image_facts": words.image_facts,
    "interval": numbers.interval,
    "metric_name": words.metric_name,
    "most_urgent": words.most_urgent,
    "group_rows": words.group_rows,
    "organ_words": words.organ_words,
    "p_value": numbers.p_value,
    "percent": numbers.percent,
    "percent_point": numbers.percent_point,
    "percent_share": numbers.percent_share,
    "plain": numbers.plain,
    "plot_title": words.plot_title,
    "probability_and_threshold": words.probability_and_threshold,
    "scale_bar": words.scale_bar,
    "sentence": words.sentence,
    "split_answers": words.split_answers,
    "stage_facts": words.stage_facts,
    "svg_uri": words.svg_uri,
    "unit_words": words.unit_words,
    "value_and_limit": words.value_and_limit,
    "widths_of": words.widths_of,
    "with_code": words.with_code,
    "utc": numbers.utc,
    "verdict_class": words.verdict_class,
}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wetread.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return environment


@cache
def template_source(name: str) -> str:
    """Return the text of a file among the templates, such as a style sheet."""
    loader = _environment().loader
    assert loader is not None  # noqa: S101  set three lines above
    return loader.get_source(_environment(), name)[0].replace("\r\n", "\n").strip()


@cache
def _icon() -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-5 -1 36 37"><path fill="#0a5a78" d="M3 1h15l6 '
        '6v25a2 2 0 0 1-2 2H3a2 2 0 0 1-2-2V3a2 2 0 0 1 2-2z"/><path fill="#9cc4dd" d="M12.5 8.5c3.6 4.7 '
        '6 7.9 6 11a6 6 0 0 1-12 0c0-3.1 2.4-6.3 6-11z"/></svg>'
    )
    return words.svg_uri(svg)


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy (CSP Level 3) that allows this style and script alone."""
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {_hash_source(style)}",
            f"script-src {_hash_source(script)}" if script else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _heat_rules(most: int) -> str:
    """Return the CSS that shows heat map i while its switch is on: no script is needed for it."""
    return "\n".join(
        f".viewer:has(.heat-on-{i}:checked) .heat-{i} {{ visibility: visible; }}" for i in range(1, most + 1)
    )


def _similar_rules(shown: bool) -> str:
    """Return the CSS of similar cases, for pages that show some."""
    return "\n" + template_source("similar.css") if shown else ""


def render_page(
    template: str, *, audit_verdict: str = _NOT_AUDITED, extra_style: str = "", scripted: bool = False, **facts: Any
) -> str:
    """Return the page of ``template`` with our head, styles and policy; ``facts`` are what the template shows."""
    style = template_source("style.css") + ("\n" + extra_style if extra_style else "")
    script = template_source("script.js") if scripted else ""
    return (
        _environment()
        .get_template(template)
        .render(
            audit_failed=words.is_failed(audit_verdict),
            audit_verdict=audit_verdict,
            disclaimer=DISCLAIMER,
            icon=_icon(),
            policy=_policy(style, script),
            style=Markup(style),  # noqa: S704  our own file: no fact is ever put into it
            script=Markup(script),  # noqa: S704
            **facts,
        )
    )


def _worst_verdict(verdicts: list[str]) -> str:
    return next((x for x in verdicts if words.is_failed(x)), verdicts[0] if verdicts else _NOT_AUDITED)


def render_read(study: StudyReport) -> str:
    """Return the page of one study: films, answers, what was done, and by which reader."""
    most = max(len(item.heatmaps) for item in study.reads)
    return render_page(
        "read.html.j2",
        study=study,
        gated=sum(not item.read.gate.passed for item in study.reads),
        audit_verdict=_worst_verdict([item.read.model.audit_verdict for item in study.reads]),
        extra_style=_heat_rules(most) + _similar_rules(any(item.read.similar for item in study.reads)),
        scripted=True,
    )


def _urgency(entry: WorklistEntry, normal_labels: tuple[str, ...]) -> tuple[int, float]:
    answer = words.most_urgent(entry.reads, normal_labels)
    if answer is None:
        return (-1, 0.0)
    rank = {"positive": 2, "negative": 1, "withheld": 0}[answer.decision]
    return (rank, answer.probability or 0.0)


def render_index(worklist: Worklist) -> str:
    """Return the overview of a batch: studies by urgency, then gated images, then failed files."""
    normal = worklist.reader.normal_labels
    entries = sorted(worklist.entries, key=lambda entry: _urgency(entry, normal), reverse=True)
    answers = [words.most_urgent(entry.reads, normal) for entry in entries]
    reads = [(entry, read) for entry in entries for read in entry.reads]
    decisions = [answer.decision if answer else "withheld" for answer in answers]
    return render_page(
        "index.html.j2",
        worklist=worklist,
        rows=list(zip(entries, answers, strict=True)),
        n_images=len(reads),
        gated=[(entry, read) for entry, read in reads if not read.gate.passed],
        tally={name: decisions.count(name) for name in ("positive", "negative", "withheld")},
        audit_verdict=_worst_verdict([read.model.audit_verdict for _, read in reads]),
        scripted=True,
    )


def render_check(result: CheckResult) -> str:
    """Return the page of ``wetread dataset check``: verdict, counts, findings, conformance."""
    return render_page(
        "check.html.j2",
        result=result,
        blocking=result.blocking,
        warning=[finding for finding in result.findings if finding.severity == "warn"],
    )


def render_audit(result: AuditResult, pictures: Mapping[str, bytes]) -> str:
    """Return the page of ``wetread audit``: the verdict, then each question with its answer, pictures and figures.

    ``pictures``: PNG bytes by the names that the examples of the lines carry.
    """
    return render_page("audit.html.j2", result=result, pictures=pictures, audit_verdict=result.verdict)


def render_compare(
    data: str,
    rows: Sequence[GridRow],
    words: Mapping[str, str],
    confusions: Mapping[str, str],
    sheets: Mapping[str, bytes],
) -> str:
    """Return the page of ``wetread compare``, everything by the name of the reader.

    ``words``: what may be said of each against the first; ``confusions``: SVG text; ``sheets``: PNG bytes.
    """
    worst = _worst_verdict([row.audit_verdict for row in rows])
    return render_page(
        "compare.html.j2", data=data, rows=rows, words=words, confusions=confusions, sheets=sheets, audit_verdict=worst
    )


def render_organs(report: OrganReport) -> str:
    """Return the page of ``wetread segment``: each film with its masks, flags and measures."""
    return render_page(
        "organs.html.j2",
        items=report.items,
        failures=report.failures,
        segmenter=report.segmenter,
        flagged=sum(bool(item.reading.flags) for item in report.items),
        audit_verdict=report.segmenter.audit_verdict,
    )


def render_overlap(report: OverlapReport) -> str:
    """Return the page of ``wetread evaluate --task segment``: scores with intervals and the worst cases."""
    return render_page("overlap.html.j2", report=report, audit_verdict=report.segmenter.audit_verdict)


def render_evaluation(
    result: EvaluationResult,
    svgs: dict[str, str],
    *,
    comparison: ComparisonResult | None = None,
    hidden: HiddenResult | None = None,
    study: StudyEvaluation | None = None,
    audit_verdict: str = _NOT_AUDITED,
) -> str:
    """Return the page of one evaluation. ``svgs``: plots by name, as ``result_plots`` makes them.

    ``study``: what a reader of studies adds: kappa, body parts, and what stands beside it.
    """
    shown = {f"{kind} {one.label}" for one in result.labels for kind in ("roc", "pr", "reliability", "histogram")}
    return render_page(
        "evaluation.html.j2",
        result=result,
        svgs=svgs,
        other_svgs={key: svg for key, svg in svgs.items() if key not in shown and key != "confusion"},
        comparison=comparison,
        hidden=hidden,
        study=study,
        audit_verdict=audit_verdict,
    )


def render_training(report: TrainingReport) -> str:
    """Return the page of one training run: settings, data, curves, what it reached, what to do next."""
    return render_page("training.html.j2", run=report, audit_verdict=report.audit_verdict)
