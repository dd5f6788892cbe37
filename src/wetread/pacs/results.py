"""All result objects of one image, as files ready to send, and who gets which."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.errors import UsageError, expected
from wetread.pacs.derived import encode, source_header
from wetread.pacs.facts import ResultFacts, instance_uid
from wetread.pacs.outbox import Letter, Result
from wetread.settings import NodeRemote

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["PICTURE_KINDS", "RESULT_KINDS", "address_results", "build_results"]

RESULT_KINDS = ("sr", "seg", "heat", "gsps", "sc", "pdf")
"""Structured report, organ masks, heat map, marks, picture, page."""
PICTURE_KINDS = ("heat", "sc", "pdf")
"""Those that are made from the film and its heat map."""


def address_results(
    source: Path, facts: ResultFacts, remotes: Mapping[str, NodeRemote]
) -> tuple[list[Result], list[Letter]]:
    """Make what ``remotes`` take of the results of the image at ``source``; return the objects, and who gets what.

    Raises:
        ImageRefused: the header of the source cannot be derived from.
    """
    image = source_header(source)
    wanted = [kind for kind in RESULT_KINDS if any(kind in remote.results for remote in remotes.values())]
    results = _build(source, image, facts, wanted)
    takers = {
        kind: tuple(name for name, one in remotes.items() if kind in one.results and (one.port or one.web))
        for kind in wanted
    }
    letters = [Letter("store", one.sop_instance, one.data, takers[one.kind]) for one in results]
    if told := tuple(name for name, remote in remotes.items() if remote.fhir):
        from wetread.pacs.fhir import fhir_json

        letters.append(Letter("fhir", instance_uid(facts, image, "fhir"), fhir_json(facts.read, image), told))
    return results, letters


def build_results(source: Path, facts: ResultFacts, kinds: Sequence[str]) -> list[Result]:
    """Make the objects of ``kinds`` for the image at ``source``, in its study.

    ``seg`` needs masks and ``heat`` a heat map: where there is none, there is no such object.

    Raises:
        ImageRefused: the header of the source cannot be derived from.
        UsageError: an unknown kind, or a picture without a film.
    """
    for kind in kinds:
        if kind not in RESULT_KINDS:
            raise UsageError(expected(f"results among {', '.join(RESULT_KINDS)}", f"'{kind}'", "correct it"))
    return _build(source, source_header(source), facts, kinds)


def _build(source: Path, image: Dataset, facts: ResultFacts, kinds: Sequence[str]) -> list[Result]:
    for kind in kinds:
        if kind in PICTURE_KINDS and facts.film is None:
            raise UsageError(expected(f"a film for the object '{kind}'", "none", "read with pictures"))
    makers = _makers(facts, image)
    made: list[Result] = []
    for kind in kinds:
        if kind == "seg":
            made += _organs(source, facts)
        elif kind != "heat" or facts.heat:
            data, raw = encode(makers[kind], source.name, f"a result ({kind})")
            uids = (str(data.SOPClassUID), str(data.SOPInstanceUID))
            made.append(Result(kind, *uids, raw, str(data.SeriesInstanceUID)))
    return made


def _makers(facts: ResultFacts, image: Dataset) -> dict[str, Callable[[], Dataset]]:
    from wetread.pacs import marks, pictures, structured_report

    return {
        "sr": lambda: structured_report.structured_report(facts, image),
        "heat": lambda: marks.heat_segmentation(facts, image),
        "gsps": lambda: marks.presentation_state(facts, image),
        "sc": lambda: pictures.secondary_capture(facts, image),
        "pdf": lambda: pictures.encapsulated_pdf(facts, image),
    }


def _organs(source: Path, facts: ResultFacts) -> list[Result]:
    from pydicom import dcmread

    from wetread.pacs.segmentation import write_segmentation

    masks = {organ: mask for organ, mask in facts.masks.items() if mask.any()}
    if not masks:
        return []
    model = facts.segmenter or facts.read.model
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seg.dcm"
        written = write_segmentation(source, masks, out, algorithm=model.name, version=model.version)
        raw = out.read_bytes()
    sop_class = str(dcmread(BytesIO(raw), stop_before_pixels=True).SOPClassUID)
    return [Result("seg", sop_class, written.sop_instance_uid, raw, written.series_instance_uid)]
