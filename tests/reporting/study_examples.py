"""Whole studies: a read of several views, and an evaluation with body parts, baselines and published figures."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.reporting import examples, similar_examples
from wetread.evaluation.plots import result_plots
from wetread.evaluation.result import EvaluationSpec
from wetread.evaluation.study import MURA_PUBLISHED, Aggregate, StudyEvaluation, evaluate_studies
from wetread.explain.overlay import heat_rgba
from wetread.reporting.facts import CasePicture
from wetread.reporting.html import render_evaluation
from wetread.reporting.study_html import render_study
from wetread.types import Evidence, GateResult, StudyRead, ViewReading


def _view(name: str, weight: float, alone: float, *, explained: bool = True) -> ViewReading:
    made = Evidence(method="gradcam", target="pneumonia", layer="bn2", heatmap=f"heatmaps/{name}")
    return ViewReading(
        image=examples.image_facts(name),
        applied=examples.APPLIED,
        gate=GateResult(passed=True),
        weights={"pneumonia": weight},
        alone={"pneumonia": alone},
        evidence={"pneumonia": made} if explained else {},
    )


def study_read(*, hostile: bool = False, verdict: str = "not audited") -> StudyRead:
    """Four views with heat and one without, one that the gate refused, one that could not be read."""
    word = examples.HOSTILE if hostile else "IM0004.dcm"
    refused = GateResult(passed=False, reasons=(f"The header of {word} says body part HAND.",))
    return StudyRead(
        study=word if hostile else "PHANTOM-0003",
        study_uid=word if hostile else "1.2.826.0.1.3680043.8.498.1",
        pooling="attention",
        labels=(examples.answer("pneumonia", 0.312),),
        drove={"pneumonia": word if hostile else "IM0001.dcm"},
        views=(
            _view(word if hostile else "IM0001.dcm", 0.62, 0.48),
            _view("IM0002.dcm", 0.21, 0.21),
            _view("IM0003.dcm", 0.1, 0.11),
            _view("IM0005.dcm", 0.05, 0.04),
            _view("IM0006.dcm", 0.02, 0.03, explained=False),
            ViewReading(image=examples.image_facts(word), applied=(), gate=refused),
        ),
        failures={word if hostile else "empty.dcm": word if hostile else "expected an image, got 0 bytes; export it"},
        similar=similar_examples.similar_cases(hostile=hostile),
        model=examples.model(verdict),
        timings_ms={"look": 40.0},
        warnings=("1 of 7 images could not be read and did not count.",),
    )


def study_page(*, hostile: bool = False, verdict: str = "not audited", slide: bool = True) -> str:
    """The page of :func:`study_read`; ``slide``: as if its images were tiles of a large one."""
    read = study_read(hostile=hostile, verdict=verdict)
    films = [examples.png(examples.film(seed)[0], 300) for seed in range(11, 15)]
    names = [view.image.name for view in read.views if view.evidence]
    assert read.similar is not None
    cases = [CasePicture(data=film, rows=512, columns=512) for film in films]
    y, x = np.mgrid[0:160, 0:400]
    heat = heat_rgba(np.exp(-(((x - 120) / 60) ** 2) - ((y - 80) / 40) ** 2).astype(np.float32))
    return render_study(
        read,
        dict(zip(names, films, strict=True)),
        population=examples.HOSTILE if hostile else "phantoms",
        limits=("One source.",),
        cases=[*cases, None],
        whole={"pneumonia": examples.png(heat, 400)} if slide else {},
    )


@cache
def study_evaluation() -> StudyEvaluation:
    """A real evaluation of made-up predictions: two body parts, two baselines, one of them worse."""
    table = examples.predictions(2, 3.4)
    parts = np.where(np.arange(len(table)) % 4 < 2, "ELBOW", "WRIST")
    table = table.assign(study=table["image"], images=3, body_part=parts)
    spec = EvaluationSpec(
        task="binary",
        classes=("normal", "pneumonia"),
        operating_points=(examples.operating_point("pneumonia"),),
        split="test",
        source="phantoms",
        reader="bones 1.0.0",
        level="study",
        resamples=60,
    )
    column = "probability_pneumonia"
    weaker = table.assign(**{column: examples.predictions(3, 0.4)[column]})
    baselines = [Aggregate("mean of image scores", weaker), Aggregate("max of image scores", table)]
    return evaluate_studies(table, spec, baselines=baselines, parts="body_part", published=MURA_PUBLISHED)


def evaluation_page(verdict: str = "not audited") -> str:
    """The page of :func:`study_evaluation`."""
    found = study_evaluation()
    return render_evaluation(found.result, result_plots(found.result), study=found, audit_verdict=verdict)
