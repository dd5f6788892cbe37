"""Synthetic studies for an empty worklist, so that a first look at the workstation is not a look at nothing.

Decided here: they are phantoms, say so in every header and go the way of any upload; the list is chosen so that each
kind of answer of the shipped reader occurs (positive, negative, abstaining, refused by the gate), which says nothing
about how often it is right. The same studies are made each time, so loading them twice adds nothing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

from wetread.datasets.phantoms import FindingKind, Identity, render, sample_finding, sample_spec, to_dicom
from wetread.service.accounts import Principal
from wetread.service.context import Service
from wetread.service.ingest import Destination, Ingested, ingest

__all__ = ["PHANTOMS", "load_phantoms", "phantom_files"]


@dataclass(frozen=True)
class _Film:
    """One film: the random numbers it is drawn with, where it was taken, what is planted, whose it is.

    ``milder``: how much less severe the findings are than drawn, for an earlier study of the same person.
    """

    seed: int
    source: str
    findings: tuple[FindingKind, ...]
    size_px: int
    identity: Identity
    mildest: float = 0.8
    milder: float = 0.0


_TWO: tuple[FindingKind, ...] = ("consolidation", "consolidation")
PHANTOMS: tuple[_Film, ...] = (
    _Film(2095, "oakchildren", _TWO, 1024, Identity("01", study=1), milder=0.6),
    _Film(2095, "oakchildren", _TWO, 1024, Identity("01", study=2)),
    _Film(2103, "riverside", _TWO, 1024, Identity("02")),
    _Film(2085, "riverside", _TWO, 1024, Identity("03")),
    _Film(1036, "hillside", ("consolidation",), 1024, Identity("04"), mildest=0.7),
    _Film(1136, "hillside", ("nodule",), 1024, Identity("05"), mildest=0.7),
    _Film(2114, "harbour", _TWO, 512, Identity("06")),
)
"""What is loaded; two studies are of one person, so that there is an earlier one to compare with."""


def phantom_files() -> Iterator[bytes]:
    """The films as DICOM files."""
    import numpy as np

    for film in PHANTOMS:
        rng = np.random.default_rng(film.seed)
        drawn = tuple(sample_finding(rng, kind, film.mildest) for kind in film.findings)
        spec = sample_spec(rng, findings=drawn, source=film.source, size_px=film.size_px)
        if film.milder:
            fainter = tuple(replace(one, severity=one.severity * (1 - film.milder)) for one in drawn)
            spec = replace(spec, findings=fainter, exposure=1)
        target = io.BytesIO()
        to_dicom(render(spec), film.identity).save_as(target, enforce_file_format=True)
        yield target.getvalue()


def load_phantoms(service: Service, who: Principal, request_id: str) -> Ingested:
    """Take in the phantoms as an upload of this user to the first worklist that the user sees.

    Raises:
        Problem: as :func:`wetread.service.ingest.ingest`.
    """
    tray = "main" if who.sees("main") else who.trays[0]
    with contextlib.ExitStack() as stack:
        files = []
        for data in phantom_files():
            file = stack.enter_context(service.blobs.quarantine(service.limits.file_bytes))
            file.write(data)
            files.append(file)
        return ingest(service, who, files, Destination(tray), request_id)
