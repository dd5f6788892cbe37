"""Facts for every page, from synthetic films; hostile texts where a file could bring them."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.datasets.check_result import CheckResult, ConformanceRow, CountTable, Example, Finding
from wetread.datasets.phantoms import render, sample_finding, sample_spec
from wetread.evaluation.compare import compare
from wetread.evaluation.plots import result_plots
from wetread.evaluation.protocol import evaluate
from wetread.evaluation.result import ComparisonResult, EvaluationResult, EvaluationSpec
from wetread.explain.overlay import heat_rgba
from wetread.reading.organs import OrganFinding, OrganReading
from wetread.reporting.facts import (
    CalibrationFacts,
    DataFacts,
    FailedFile,
    FoldRow,
    MetricRow,
    NextStep,
    OrganItem,
    OrganReport,
    OverlapReport,
    ReaderSummary,
    ReadWithPictures,
    SegmenterSummary,
    StudyReport,
    TrainingReport,
    Worklist,
    WorklistEntry,
)
from wetread.types import (
    Box,
    Decision,
    Estimate,
    Evidence,
    GateResult,
    ImageFacts,
    LabelReading,
    Measure,
    ModelIdentity,
    OperatingPoint,
    Read,
    Step,
)

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&amp;"""
CREATED = datetime(2026, 11, 21, 4, 10, tzinfo=UTC)
SHA = "9f2c6d0b4e1a7f3358c2d9e4b6a1f0c7d5e8b2a39c4f6e1d0b7a8c5f2e3d4b19"
READER = ReaderSummary(
    name="chest-pneumonia",
    intended_use="Research on frontal chest radiographs of children aged 1 to 5: probability of pneumonia.",
    not_for=("adults", "lateral views", "any decision about a patient"),
    population="5,216 radiographs of children aged 1 to 5 from one hospital (2017); 74 % with pneumonia.",
    limits=(
        "One hospital: how it does elsewhere is unknown.",
        "In this set the label can be told from the frame around the lungs alone.",
    ),
    licence="CC BY 4.0",
    normal_labels=("normal",),
)


@cache
def film(seed: int = 3, *, sick: bool = True, size: int = 512) -> tuple[NDArray[np.uint8], Box | None]:
    """A synthetic film, uint8 (size, size), and the box of what was planted."""
    rng = np.random.default_rng(seed)
    findings = (sample_finding(rng, "consolidation"),) if sick else ()
    phantom = render(sample_spec(rng, findings=findings, size_px=size))
    pixels = np.rint(phantom.image * 255).astype(np.uint8)
    return pixels, (phantom.findings[0].box if sick else None)


def png(pixels: NDArray[np.uint8], longest: int | None = None) -> bytes:
    picture = PilImage.fromarray(pixels)
    if longest:
        picture.thumbnail((longest, longest))
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def heat(box: Box, size: int = 512) -> bytes:
    """RGBA PNG of a warm spot over ``box``."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    cx, cy = box.x + box.width / 2, box.y + box.height / 2
    spread = (x - cx) ** 2 / (0.5 * box.width) ** 2 + (y - cy) ** 2 / (0.5 * box.height) ** 2
    return png(heat_rgba(np.exp(-spread).astype(np.float32)))


def image_facts(name: str, size: int = 512, **changes: object) -> ImageFacts:
    facts: dict[str, object] = {
        "name": name,
        "format": "DICOM",
        "sha256": SHA,
        "rows": size,
        "columns": size,
        "bits": 12,
        "photometric_interpretation": "MONOCHROME1",
        "spacing_mm": (0.7, 0.7),
        "modality": "CR",
        "body_part": "CHEST",
        "view": "AP",
        "patient": "PHANTOM-0003",
        "sex": "F",
        "age_years": 3.5,
        "study_uid": "1.2.826.0.1.3680043.8.498.1",
        "manufacturer": "wetread phantom",
        "burned_in_annotation": False,
    }
    return ImageFacts.model_validate(facts | changes)


def operating_point(label: str, threshold: float = 0.431) -> OperatingPoint:
    return OperatingPoint(
        name="sensitivity-95",
        label=label,
        threshold=threshold,
        rule="highest specificity with sensitivity of at least 0.95",
        sensitivity=Estimate(value=0.953, low=0.936, high=0.966, n=776, method="Wilson"),
        specificity=Estimate(value=0.912, low=0.876, high=0.938, n=268, method="Wilson"),
    )


def answer(label: str, probability: float, box: Box | None = None) -> LabelReading:
    decision: Decision = "positive" if probability >= 0.431 else "negative"
    evidence = Evidence(
        method="Grad-CAM",
        target=label,
        layer="conv_head",
        boxes=(box,) if box else (),
        limits=("A map of 7 × 7 cells, enlarged: its edge is no outline.",),
    )
    return LabelReading(
        label=label,
        probability=probability,
        decision=decision,
        operating_point=operating_point(label),
        evidence=evidence,
    )


def model(verdict: str = "not audited") -> ModelIdentity:
    return ModelIdentity(name="chest-pneumonia", version="1.0.0", sha256=SHA[::-1], audit_verdict=verdict)


APPLIED = (
    Step(name="modality rescale", detail={"slope": 1.0, "intercept": 0.0}),
    Step(name="voi window", detail={"centre": 2047.5, "width": 4096.0, "function": "LINEAR"}),
    Step(name="photometric inversion", detail={"from": "MONOCHROME1"}),
)


def read(
    name: str, labels: tuple[LabelReading, ...], *, reasons: tuple[str, ...] = (), verdict: str = "not audited"
) -> Read:
    if reasons:
        labels = tuple(LabelReading(label=x.label, probability=None, decision="withheld") for x in labels)
    return Read(
        image=image_facts(name),
        applied=APPLIED,
        gate=GateResult(passed=not reasons, reasons=reasons, distance=61.27 if reasons else 11.94, limit=24.8),
        labels=labels,
        model=model(verdict),
        timings_ms={"load": 6.4, "gate": 3.1, "forward": 38.2, "heat map": 9.7},
    )


def sick_read(name: str = "IM0001.dcm", *, verdict: str = "not audited") -> ReadWithPictures:
    pixels, box = film()
    assert box is not None
    labels = (answer("pneumonia", 0.874, box), answer("effusion", 0.062))
    return ReadWithPictures(
        read=read(name, labels, verdict=verdict),
        film_png=png(pixels),
        heatmaps={"pneumonia": heat(box), "effusion": heat(Box(x=300, y=330, width=90, height=70))},
    )


def gated_read(name: str = "IM0002.dcm") -> ReadWithPictures:
    y, x = np.mgrid[0:512, 0:512]
    photo = np.stack([x // 2, y // 2, 255 - x // 2], axis=-1).astype(np.uint8)
    reasons = (
        "The header says body part HAND; this reader was built for CHEST.",
        "The image lies far from everything the reader was trained on (distance 61.3, limit 24.8).",
    )
    return ReadWithPictures(read=read(name, (answer("pneumonia", 0.9),), reasons=reasons), film_png=png(photo))


def study(*, verdict: str = "not audited", hostile: bool = False, gated: bool = True) -> StudyReport:
    reads = (sick_read(verdict=verdict), *((gated_read(),) if gated else ()))
    if hostile:
        facts = image_facts(HOSTILE, body_part=HOSTILE, view=HOSTILE, manufacturer=HOSTILE, patient=HOSTILE)
        first = reads[0].read.model_copy(
            update={
                "image": facts,
                "warnings": (HOSTILE,),
                "applied": (Step(name=HOSTILE, detail={HOSTILE: HOSTILE}),),
                "timings_ms": {HOSTILE: 1.0},
            }
        )
        reads = (reads[0].model_copy(update={"read": first}), *reads[1:])
    return StudyReport(
        title=HOSTILE if hostile else "Chest radiographs of PHANTOM-0003",
        study_uid=HOSTILE if hostile else "1.2.826.0.1.3680043.8.498.1",
        reads=reads,
        created=CREATED,
        reader=READER,
        wetread_version="0.1.0",
    )


def worklist(*, hostile: bool = False, verdict: str = "not audited") -> Worklist:
    entries = []
    for i, probability in enumerate((0.213, 0.874, 0.003, 0.4306, 0.998, 0.561)):
        name = HOSTILE if hostile and i == 0 else f"PHANTOM-{i:04d}"
        one = read(f"{name}.dcm", (answer("pneumonia", probability),), verdict=verdict)
        if i == 2:
            one = one.model_copy(update={"warnings": ("Burned-in text may be present.",)})
        thumbnail = png(film(10 + i, sick=probability > 0.4, size=256)[0], 96)
        href = f"{i:04d} & co/report.html"
        entries.append(WorklistEntry(title=name, href=href, reads=(one,), thumbnail=thumbnail))
    refused = read("holiday.jpg", (answer("pneumonia", 0.9),), reasons=("A colour photograph, no radiograph.",))
    entries.append(WorklistEntry(title="holiday.jpg", href="holiday/report.html", reads=(refused,)))
    reason = "expected a DICOM, PNG, JPEG or TIFF image, got 0 bytes; export the file again"
    return Worklist(
        title="Demonstration batch",
        created=CREATED,
        reader=READER,
        entries=tuple(entries),
        failures=(FailedFile(path=HOSTILE if hostile else "empty.dcm", reason=HOSTILE if hostile else reason),),
        wetread_version="0.1.0",
    )


def _thumb(seed: int) -> str:
    return base64.b64encode(png(film(seed, size=256)[0], 128)).decode()


def check(*, hostile: bool = False, clean: bool = False) -> CheckResult:
    path = HOSTILE if hostile else "train/PNEUMONIA/person7_bacteria_24.jpeg"
    pair = Example(paths=(path, "test/PNEUMONIA/person7_copy.jpeg"), detail="pHash distance 2, correlation 0.994",
                   thumbnails=(_thumb(10), _thumb(10)))  # fmt: skip
    alone = [Example(paths=(f"train/NORMAL/IM-{i:04d}.jpeg",), detail="score 0.03", thumbnails=(_thumb(i),))
             for i in (11, 12, 13)]  # fmt: skip
    findings = (
        Finding(code="unlabelled", severity="info", title="Images without a label", count=4, unit="images",
                cure="Label them or leave them: they are not trained on."),
        Finding(code="quality-dark", severity="warn", title="Dark images", count=17, unit="images",
                cure="Look at them; drop what is no radiograph.", examples=tuple(alone)),
        Finding(code="near-duplicates-across-splits", severity="block", title="Near-duplicates in two splits",
                count=2, unit="groups", cure="wetread dataset split FOLDER --group-duplicates",
                examples=(pair, pair)),
    )  # fmt: skip
    rows = (
        ConformanceRow(status="ok", format="DICOM", bits=12, photometric_interpretation="MONOCHROME1",
                       transfer_syntax="JPEG Lossless SV1", count=5200, example=path,
                       applied=("modality rescale", "voi window", "photometric inversion"),
                       before_png=_thumb(11), after_png=_thumb(12)),
        ConformanceRow(status="refused", format="PDF", bits=None, photometric_interpretation=None,
                       transfer_syntax=None, count=1, example="scan.pdf", remarks=("a PDF is no image",)),
    )  # fmt: skip
    counts = (
        CountTable(title="images per class and split", columns=("class", "train", "val", "test", "all"),
                   rows=(("NORMAL", 1082, 267, 234, 1583), ("PNEUMONIA", 3110, 773, 390, 4273))),
        CountTable(title="patients per split", columns=("split", "patients"),
                   rows=(("train", 2206), ("val", 551), ("test", 438))),
    )  # fmt: skip
    return CheckResult(
        dataset="kermany-cxr", task="binary", classes=("NORMAL", "PNEUMONIA"), n_images=5856, n_patients=None,
        n_studies=None, counts=counts, findings=() if clean else findings, conformance=rows,
        thresholds={"phash_distance": 4.0, "correlation": 0.97}, seconds={"scan": 31.2, "duplicates": 4.4},
        wetread_version="0.1.0",
    )  # fmt: skip


CURVE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180"><rect width="320" height="180" fill="#fff"/>'
    '<path style="fill:none;stroke:#0072b2;stroke-width:2" d="M20 20C60 120 120 150 300 155"/></svg>'
)


def training(*, hostile: bool = False, verdict: str = "not audited") -> TrainingReport:
    value = Estimate(value=0.9914, low=0.9862, high=0.9947, n=1044, method="logit-DeLong")
    return TrainingReport(
        title=HOSTILE if hostile else "chest-pneumonia, fine-tuned",
        created=CREATED,
        run_folder="runs/chest/finetune-1",
        reader=READER,
        outcome="Stopped after epoch 7 of 12: validation AUROC did not rise for 3 epochs. Best at epoch 4.",
        config={
            "model.name": "tf_efficientnet_lite0",
            "train.mode": "finetune",
            "train.learning_rate": 3e-4,
            "train.batch_size": 32,
            "train.hflip": False,
            "train.resume": None,
        },
        data=DataFacts(name="kermany-cxr", task="binary", classes=("NORMAL", "PNEUMONIA"), n_images=5216,
                       n_patients=2757, split_method="StratifiedGroupKFold by patient", split_seed=7,
                       split_sha256=SHA, counts=check().counts[:1], licence="CC BY 4.0"),
        curves={"Loss by epoch": CURVE, "Validation AUROC by epoch": CURVE},
        metrics=(
            MetricRow(name="auroc", estimate=value),
            MetricRow(name="ece", estimate=Estimate(value=0.021, low=0.014, high=0.033, n=1044)),
            MetricRow(name="npv", label="PNEUMONIA", estimate=Estimate(value=None, note="nobody was negative")),
        ),
        operating_points=(operating_point("PNEUMONIA"),),
        calibration=CalibrationFacts(method="temperature scaling", temperature={"all": 1.42}, n=1044,
                                     ece_before=Estimate(value=0.046, low=0.035, high=0.058, n=1044),
                                     ece_after=Estimate(value=0.021, low=0.014, high=0.033, n=1044)),
        folds=tuple(
            FoldRow(fold=i, n_train=4172, n_validation=1044, best_epoch=4 + i, metrics={"auroc": value})
            for i in range(1, 4)
        ),
        provenance={"seed": "7", "torch": "2.9.1", "device": "cpu", "git": "d668f57"},
        warnings=(HOSTILE,) if hostile else ("Only 268 negatives in validation: specificity is coarse.",),
        next_steps=(
            NextStep(text="Evaluate it on data that chose nothing.", command="wetread evaluate runs/x --split test"),
            NextStep(text="Look at the cases it gets wrong."),
        ),
        audit_verdict=verdict,
        wetread_version="0.1.0",
    )  # fmt: skip


def predictions(seed: int, sharp: float, n: int = 240) -> pd.DataFrame:
    """A binary predictions table of ``n`` images, two of each patient."""
    rng = np.random.default_rng(1)  # the same truth and patients for every reader
    sick = rng.random(n // 2) < 0.6
    truth = np.repeat(sick, 2)
    noise = np.random.default_rng(seed)
    logit = sharp * (truth - 0.5) + noise.normal(0, 1.3, n)
    return pd.DataFrame(
        {
            "image": [f"image{i:04d}.png" for i in range(n)],
            "patient": np.repeat([f"p{i:03d}" for i in range(n // 2)], 2),
            "probability_pneumonia": 1 / (1 + np.exp(-logit)),
            "target": np.where(truth, "pneumonia", "normal"),
            "split": "test",
            "sex": np.repeat(rng.choice(["F", "M"], n // 2), 2),
            "source": np.repeat(rng.choice(["ward", "clinic", "tent"], n // 2, p=[0.6, 0.38, 0.02]), 2),
        }
    )


@cache
def evaluation() -> tuple[EvaluationResult, dict[str, str], ComparisonResult]:
    """A real evaluation of made-up predictions, its plots and a paired comparison."""
    point = operating_point("pneumonia")
    spec = EvaluationSpec(
        task="binary",
        classes=("normal", "pneumonia"),
        operating_points=(point, point.model_copy(update={"name": "youden", "threshold": 0.52, "rule": "Youden's J"})),
        by=("sex", "source"),
        split="test",
        source="phantoms",
        reader="chest-pneumonia",
        resamples=60,
    )
    a, b = predictions(2, 3.0), predictions(3, 4.2)
    result = evaluate(a, spec, provenance={"wetread": "0.1.0", "seed": "0", "predictions": SHA})
    return result, result_plots(result), compare(a, b, (spec, spec), ("plain", "augmented"))


@cache
def multilabel_evaluation() -> tuple[EvaluationResult, dict[str, str]]:
    """Two labels, one of them known for few images; per label as ``<script>`` would have it."""
    a = predictions(2, 3.0, 200)
    table = pd.DataFrame({"image": a["image"], "patient": a["patient"]})
    for i, label in enumerate(("consolidation", "effusion")):
        table[f"probability_{label}"] = predictions(i + 5, 2.5, 200)["probability_pneumonia"]
        table[f"target_{label}"] = (a["target"] == "pneumonia").astype(float)
    table.loc[:150, "target_effusion"] = np.nan
    spec = EvaluationSpec(task="multilabel", classes=("consolidation", "effusion"), resamples=60, source="phantoms")
    result = evaluate(table, spec)
    return result, result_plots(result)


def many_labels() -> StudyReport:
    """One image with six labels, two of them positive."""
    pixels, box = film()
    assert box is not None
    told = {"atelectasis": 0.11, "cardiomegaly": 0.62, "consolidation": 0.934, "oedema": 0.02, "effusion": 0.004,
            "emphysema": 0.427}  # fmt: skip
    labels = tuple(answer(name, p, box if name == "consolidation" else None) for name, p in told.items())
    one = ReadWithPictures(read=read("IM0001.dcm", labels), film_png=png(pixels), heatmaps={"consolidation": heat(box)})
    return study().model_copy(update={"reads": (one,)})


def segmenter(*, hostile: bool = False, verdict: str = "not audited") -> SegmenterSummary:
    text = HOSTILE if hostile else "lungs"
    return SegmenterSummary(
        name=text,
        version="1.0.0",
        sha256=SHA,
        organs=(text, "heart"),
        population=HOSTILE if hostile else "322 films of adults",
        limits=(HOSTILE if hostile else "No lateral views.",),
        audit_verdict=verdict,
    )


def _organ_item(name: str, organ: str, flags: tuple[str, ...] = ()) -> OrganItem:
    found = (
        OrganFinding(organ=organ, area_px=70_000, image_share=0.267, confidence=0.974, flags=flags),
        OrganFinding(organ="heart", area_px=0, image_share=0.0, confidence=0.0, flags=("empty",)),
    )
    sizes = (
        Measure(name="area", organ=organ, value=412.345, unit="cm2"),
        Measure(name="symmetry index", organ=organ, value=0.914, unit="1"),
        Measure(name="width", organ="heart", value=None, unit="cm", reason="the mask of the heart is empty"),
    )
    reading = OrganReading(
        image=image_facts(name),
        applied=APPLIED,
        organs=found,
        measures=sizes,
        model=model(),
        timings_ms={"find": 31.0},
        warnings=("No DICOM SEG was written.",),
    )
    return OrganItem(reading=reading, picture=png(film(size=256)[0]))


def organs(*, hostile: bool = False, verdict: str = "not audited") -> OrganReport:
    organ = HOSTILE if hostile else "lungs"
    flags = (HOSTILE,) if hostile else ("too small",)
    failed = FailedFile(path=HOSTILE if hostile else "empty.dcm", reason=HOSTILE if hostile else "0 bytes")
    return OrganReport(
        items=(_organ_item(HOSTILE if hostile else "IM0001.dcm", organ, flags), _organ_item("IM0002.dcm", organ)),
        failures=(failed,),
        segmenter=segmenter(hostile=hostile, verdict=verdict),
    )


def overlap(*, hostile: bool = False, verdict: str = "not audited") -> OverlapReport:
    text = HOSTILE if hostile else "lungs on phantoms"
    rows = (
        MetricRow(name=text, estimate=Estimate(value=0.951, low=0.942, high=0.959, n=120, method="bootstrap")),
        MetricRow(name="hd95 lungs (mm)", estimate=Estimate(value=None, n=0, note="no cases", method="bootstrap")),
    )
    return OverlapReport(
        title=text,
        created=CREATED,
        segmenter=segmenter(hostile=hostile, verdict=verdict),
        dataset=text,
        split=HOSTILE if hostile else "test",
        n_images=120,
        n_patients=61,
        n_flagged=7,
        metrics=rows,
        pictures=((text, png(film(size=128)[0])),),
        wetread_version="0.1.0",
    )
