"""Reads as a reader would give them, without one."""

from __future__ import annotations

from typing import Any

import numpy as np

from wetread.pacs.facts import ResultFacts
from wetread.types import (
    Box,
    Estimate,
    Evidence,
    GateResult,
    ImageFacts,
    LabelReading,
    Measure,
    ModelIdentity,
    OperatingPoint,
    PredictionSet,
    Read,
)

POINT = OperatingPoint(
    name="youden",
    label="pneumonia",
    threshold=0.42,
    rule="largest sum",
    sensitivity=Estimate(value=0.9),
    specificity=Estimate(value=0.8),
)
MODEL = ModelIdentity(name="chest-pneumonia", version="1.0", sha256="ab" * 32, audit_verdict="PASS")
FAILED = MODEL.model_copy(update={"audit_verdict": "FAIL: do not trust"})
EVIDENCE = Evidence(
    method="gradcam",
    target="pneumonia",
    layer="last",
    boxes=(Box(x=10, y=12, width=20, height=16), Box(x=0, y=0, width=64, height=64)),
)


def read(**changes: Any) -> Read:
    """A positive read with two boxes and three measures."""
    positive = LabelReading(
        label="pneumonia", probability=0.8731, decision="positive", operating_point=POINT, evidence=EVIDENCE
    )
    other = LabelReading(label="Something quite unheard of", probability=0.1, decision="negative")
    values: dict[str, Any] = {
        "image": ImageFacts(name="film.dcm", format="DICOM", sha256="cd" * 32, rows=64, columns=64, bits=12),
        "applied": (),
        "gate": GateResult(passed=True),
        "labels": (positive, other),
        "measures": (
            Measure(name="area", organ="heart", value=123.4, unit="cm2"),
            Measure(name="cardiothoracic_ratio", organ="heart", value=0.51, unit="1"),
            Measure(name="area", organ="spleen", value=None, unit="cm2", reason="not found"),
        ),
        "model": MODEL,
        "timings_ms": {"load": 1.0},
    }
    return Read(**(values | changes))


def refused() -> Read:
    """A read that the gate withheld."""
    withheld = LabelReading(label="pneumonia", probability=None, decision="withheld", reason="Not a chest radiograph.")
    gate = GateResult(passed=False, reasons=("Not a chest radiograph.",))
    return read(gate=gate, labels=(withheld,), measures=())


def abstained() -> Read:
    """A read whose prediction set holds two answers."""
    both = PredictionSet(
        classes=("pneumonia", "no pneumonia"), alpha=0.1, method="split", abstains=True, reason="both answers remain"
    )
    return read(prediction_set=both)


def negative() -> Read:
    """A read without any finding."""
    return read(labels=(LabelReading(label="pneumonia", probability=0.02, decision="negative"),), measures=())


def facts(one: Read | None = None, *, heat: bool = True) -> ResultFacts:
    """The facts of a read with a heat map that rises to the right."""
    film = np.random.default_rng(5).integers(0, 256, (64, 64), dtype=np.uint8)
    ramp = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
    mask = np.zeros((64, 64), bool)
    mask[10:40, 5:30] = True
    return ResultFacts(
        read=one or read(),
        film=film,
        heat={"pneumonia": ramp} if heat else {},
        overlays={"pneumonia": np.repeat(film[..., None], 3, axis=2)} if heat else {},
        masks={"lungs": mask},
    )
