"""Synthetic chest radiographs with known truth: the public face of the ``phantom_*`` modules.

A projection model, not a picture of anybody: it serves tests, demonstrations and the planting of
shortcuts, and is no substitute for patients (``docs/explanation/phantoms.md``). Draw a
specification with :func:`sample_spec`, :func:`render` it, write it, or :func:`make_dataset`.
"""

from __future__ import annotations

from wetread.datasets.phantom_dataset import DatasetPlan, make_dataset, planned
from wetread.datasets.phantom_files import (
    Identity,
    identity_of,
    phantom_uid,
    stored_pixels,
    to_dicom,
    write_dicom,
    write_masks,
    write_png,
)
from wetread.datasets.phantom_look import SOURCES, Source
from wetread.datasets.phantom_render import FindingTruth, Phantom, render, sample_pose, sample_spec
from wetread.datasets.phantom_spec import FINDING_KINDS, Finding, FindingKind, PhantomSpec, Pose, Side, sample_finding

__all__ = [
    "FINDING_KINDS",
    "SOURCES",
    "DatasetPlan",
    "Finding",
    "FindingKind",
    "FindingTruth",
    "Identity",
    "Phantom",
    "PhantomSpec",
    "Pose",
    "Side",
    "Source",
    "identity_of",
    "make_dataset",
    "phantom_uid",
    "planned",
    "render",
    "sample_finding",
    "sample_pose",
    "sample_spec",
    "stored_pixels",
    "to_dicom",
    "write_dicom",
    "write_masks",
    "write_png",
]
