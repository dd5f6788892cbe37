"""A whole data set of phantoms: patients with one or several films, labels, masks, boxes, split.

The findings are the only difference between the classes: sources, ages and poses are drawn in the
same way for all, so that a reader that finds the label elsewhere has found a shortcut that somebody
planted on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.datasets.phantom_files import Identity, write_dicom, write_masks, write_png
from wetread.datasets.phantom_look import SOURCES, source_of
from wetread.datasets.phantom_render import Phantom, render, sample_pose, sample_spec
from wetread.datasets.phantom_spec import FINDING_KINDS, MILDEST, Finding, FindingKind, PhantomSpec, sample_finding
from wetread.errors import UsageError, expected
from wetread.provenance import atomic_folder, file_sha256
from wetread.runtime import in_order
from wetread.types import Task

__all__ = ["DatasetPlan", "make_dataset", "planned"]

Progress = Callable[[int, int], None]
"""Called after each image with the number done and the number in all."""

MAX_IMAGES = 2**20
FILMS = (1, 2, 3)
FILM_SHARES = (0.55, 0.30, 0.15)
"""How many films a patient has: enough repeats that a split by images would leak."""
KEEPS_FINDING = 0.75
"""Share of follow-up films that still show the patient's finding."""
NEGATIVE = "normal"


@dataclass(frozen=True)
class DatasetPlan:
    """What :func:`make_dataset` makes.

    ``n`` images; about ``prevalence`` of the patients have a finding among ``kinds``, on their first film of
    severity ``mildest`` (0-1) or more. ``task``
    binary: *normal* against the kind (or *abnormal* for several kinds); multiclass: the kinds and
    *normal*; multilabel: a column for each kind. ``fractions`` may be empty: then nothing is split.
    """

    n: int
    seed: int = 0
    kinds: tuple[FindingKind, ...] = ("consolidation",)
    prevalence: float = 0.5
    mildest: float = MILDEST
    sources: tuple[str, ...] = tuple(SOURCES)
    task: Task = "binary"
    format: Literal["dicom", "png", "png16"] = "dicom"
    size_px: int = 512
    masks: bool = True
    fractions: dict[str, float] = field(default_factory=lambda: {"train": 0.6, "val": 0.2, "test": 0.2})

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_IMAGES:
            raise UsageError(expected(f"1 to {MAX_IMAGES} images", self.n, "ask for fewer or more"))
        if self.seed < 0:
            raise UsageError(expected("a seed of at least 0", self.seed, "choose another"))
        for what, share in (("prevalence", self.prevalence), ("mildest severity", self.mildest)):
            if not 0.0 <= share <= 1.0:
                raise UsageError(expected(f"a {what} from 0 to 1", share, "choose a share"))
        if not self.kinds or not set(self.kinds) <= set(FINDING_KINDS):
            raise UsageError(expected(f"kinds among {', '.join(FINDING_KINDS)}", self.kinds, "name at least one"))
        if not self.sources:
            raise UsageError(expected(f"sources among {', '.join(SOURCES)}", "none", "name at least one"))
        for name in self.sources:
            source_of(name)
        formats, tasks = ("dicom", "png", "png16"), ("binary", "multiclass", "multilabel")
        for what, got, allowed in (("format", self.format, formats), ("task", self.task, tasks)):
            if got not in allowed:
                raise UsageError(expected(f"{what} among {', '.join(allowed)}", f"'{got}'", "use one of them"))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the manifest."""
        if self.task == "multilabel":
            return tuple(self.kinds)
        if self.task == "multiclass":
            return (NEGATIVE, *self.kinds)
        return (NEGATIVE, self.kinds[0] if len(self.kinds) == 1 else "abnormal")


def planned(plan: DatasetPlan) -> Iterator[tuple[PhantomSpec, Identity]]:
    """The specification and identity of every image, without rendering any."""
    rng = np.random.default_rng([plan.seed, 20])
    films = rng.choice(FILMS, plan.n, p=FILM_SHARES)
    count = int(np.searchsorted(np.cumsum(films), plan.n)) + 1
    ill = np.zeros(count, bool)
    ill[: round(plan.prevalence * count)] = True
    rng.shuffle(ill)
    made = turn = 0
    for patient in range(count):
        kinds = _kinds(plan, turn, rng) if ill[patient] else ()
        turn += int(ill[patient])
        findings = tuple(sample_finding(rng, kind, plan.mildest) for kind in kinds)
        source = plan.sources[int(rng.integers(len(plan.sources)))]
        first = replace(
            sample_spec(rng, findings=findings, source=source, size_px=plan.size_px),
            seed=plan.seed * MAX_IMAGES + patient,
        )
        for film in range(min(int(films[patient]), plan.n - made)):
            made += 1
            yield _follow_up(first, film, rng), Identity(f"{first.seed:04d}", study=film + 1)


def _kinds(plan: DatasetPlan, turn: int, rng: np.random.Generator) -> tuple[FindingKind, ...]:
    """Kinds of an ill patient: one, in turn; several at once only where labels may overlap."""
    main = plan.kinds[turn % len(plan.kinds)]
    if plan.task != "multilabel":
        return (main,)
    return (main, *(k for k in plan.kinds if k != main and rng.random() < 0.25))


def _follow_up(first: PhantomSpec, film: int, rng: np.random.Generator) -> PhantomSpec:
    """A later film of the same patient: other pose and noise, finding changed or gone."""
    if film == 0:
        return first
    pose = sample_pose(rng, supine=first.view == "AP")
    drift = [float(np.clip(f.severity + rng.normal(0, 0.1), 0.15, 1.0)) for f in first.findings]
    changed = tuple(replace(f, severity=s) for f, s in zip(first.findings, drift, strict=True))
    kept = changed if rng.random() < KEEPS_FINDING else _lasting(changed)
    return replace(first, exposure=film, pose=pose, findings=kept)


def _lasting(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What does not heal between two films: a large heart."""
    return tuple(f for f in findings if f.kind == "cardiomegaly")


def make_dataset(folder: Path, plan: DatasetPlan, progress: Progress | None = None) -> Manifest:
    """Write the images, masks, ``labels.csv`` and the manifest of a plan into a new ``folder``.

    Images lie in ``images/<source>/<patient>/``, masks in ``masks/``, all or nothing. Raises
    :class:`UsageError` where the folder holds something already, ``SplitRefused`` where there are
    too few patients for the asked split (empty ``fractions`` ask for none).
    """
    with atomic_folder(folder) as part:
        rows = []
        for row in in_order(lambda film: _write(part, plan, render(film[0]), film[1]), planned(plan)):
            rows.append(row)
            if progress is not None:
                progress(len(rows), plan.n)
        manifest = _split(_manifest(part, plan, rows), plan)
        manifest.table.to_csv(part / "labels.csv", index=False)
        manifest.save(part)
    return replace(manifest, folder=folder)


def _manifest(folder: Path, plan: DatasetPlan, rows: list[dict[str, Any]]) -> Manifest:
    import pandas as pd

    meta = DatasetMeta(
        name=f"phantoms-{plan.seed}",
        task=plan.task,
        classes=plan.classes,
        licence="CC0-1.0",
        label_policy="planted by construction; normal means that nothing was planted",
        organ="lungs",
        importer="phantoms",
    )
    return Manifest(pd.DataFrame(rows), meta, folder)


def _split(manifest: Manifest, plan: DatasetPlan) -> Manifest:
    if not plan.fractions:
        return manifest
    from wetread.datasets.splits import make_split

    return make_split(manifest, plan.fractions, seed=plan.seed)


def _write(folder: Path, plan: DatasetPlan, phantom: Phantom, who: Identity) -> dict[str, Any]:
    """Write one phantom; return its row."""
    spec = phantom.spec
    patient = f"PHANTOM-{who.patient}"
    stem = Path(spec.source) / patient / f"{who.study}_{spec.view.lower()}"
    path = folder / "images" / stem.with_suffix(".dcm" if plan.format == "dicom" else ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    if plan.format == "dicom":
        write_dicom(phantom, path, who)
    else:
        write_png(phantom, path, bits=8 if plan.format == "png" else 16)
    height, width = phantom.image.shape
    return {
        "path": path.relative_to(folder).as_posix(),
        "patient": patient,
        "study": f"{patient}-{who.study}",
        **_labels(plan, spec),
        "source": spec.source,
        "view": spec.view,
        "body_part": "CHEST",
        "sex": spec.sex,
        "age": spec.age_years,
        **(_masks(folder, stem, phantom) if plan.masks else {}),
        "boxes": json.dumps(_boxes(phantom)),
        "sha256": file_sha256(path),
        "width": width,
        "height": height,
        "bits": source_of(spec.source).bits if plan.format == "dicom" else (8 if plan.format == "png" else 16),
        "spacing_mm": f"{phantom.pixel_mm:g},{phantom.pixel_mm:g}",
        "licence": "CC0-1.0",
    }


def _labels(plan: DatasetPlan, spec: PhantomSpec) -> dict[str, Any]:
    if plan.task == "multilabel":
        return {f"label_{kind}": int(spec.has(kind) is not None) for kind in plan.kinds}
    if not spec.findings:
        return {"label": NEGATIVE}
    return {"label": spec.findings[0].kind if plan.task == "multiclass" else plan.classes[1]}


def _masks(folder: Path, stem: Path, phantom: Phantom) -> dict[str, str | None]:
    """Columns of the masks: ``mask`` is both lungs, the rest is named after its part."""
    target = folder / "masks" / stem
    target.parent.mkdir(parents=True, exist_ok=True)
    paths = {k: p.relative_to(folder).as_posix() for k, p in write_masks(phantom, target).items()}
    return {
        "mask": paths["lungs"],
        "mask_lung_left": paths["lung_left"],
        "mask_lung_right": paths["lung_right"],
        "mask_heart": paths["heart"],
        "mask_findings": paths.get("findings"),
    }


def _boxes(phantom: Phantom) -> list[dict[str, Any]]:
    """Boxes in pixels of the image, with what they hold."""
    return [
        {
            "label": truth.finding.kind,
            "side": truth.finding.side,
            "severity": round(truth.finding.severity, 3),
            "x": truth.box.x,
            "y": truth.box.y,
            "width": truth.box.width,
            "height": truth.box.height,
        }
        for truth in phantom.findings
    ]
