"""Files of several frames after the upload: show one frame, and let one be read that was not read at first."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from wetread.service.context import Service
from wetread.service.headers import ImageHeader, cut_frame
from wetread.service.ingest import frame_header
from wetread.service.problems import Problem
from wetread.service.removal import require_files
from wetread.service.tables import Blob, StudyImage, new_id
from wetread.service.upsert import insert_new
from wetread.service.wrap import as_dicom

__all__ = ["frame_as_dicom", "known_frame", "name_frame", "require_single", "store_frame"]


def frame_as_dicom(service: Service, image: StudyImage, frame: int) -> bytes:
    """One frame, counted from 1, as a DICOM file of one frame.

    Raises:
        Problem: ``not_found``: there is no such frame.
        ImageRefused: the file is damaged.
    """
    from wetread.imaging import load_image
    from wetread.imaging.raster import load_raster

    _require_frame(image, frame)
    budget = service.limits.file_bytes
    if image.facts.get("frames", 1) == 1:
        if image.kind == "DICOM":
            return service.blobs.read(image.sha256)
        return as_dicom(load_image(service.blobs.path(image.sha256), budget_bytes=budget), image.study_id, image.id)
    cut = cut_frame(service.blobs.read(image.sha256), image.kind, frame)
    if image.kind == "DICOM":
        return cut
    return as_dicom(load_raster(cut, image.kind, "page", budget), image.study_id, f"{image.id} {frame}")


def known_frame(session: Session, image: StudyImage, frame: int) -> StudyImage | None:
    """The frame of a stack as an image of its own, where it was cut out already."""
    rows = session.scalars(select(StudyImage).where(StudyImage.study_id == image.study_id))
    wanted = {"frame": frame, "frame_of": image.sha256}
    return next((row for row in rows if {**row.facts, **wanted} == row.facts), None)


def store_frame(service: Service, image: StudyImage, frame: int) -> ImageHeader:
    """Cut a frame out and store it as a file of its own; nothing names it yet.

    Raises:
        Problem: ``not_found``: there is no such frame.
        ImageRefused: the file is damaged.
    """
    _require_frame(image, frame)
    data = service.blobs.read(image.sha256)
    with service.blobs.quarantine(service.limits.file_bytes) as made:
        made.write(cut_frame(data, image.kind, frame))
        made.finish()
        whole = ImageHeader(image.sha256, image.kind, image.rows, image.columns, number=image.number)
        header = frame_header(made, whole, frame, service.limits.file_bytes)
        service.blobs.keep(made)
    return replace(header, number=image.number)


def name_frame(service: Service, session: Session, image: StudyImage, header: ImageHeader) -> StudyImage:
    """Write the rows of a stored frame; the row that is there already where another was faster."""
    size = service.blobs.path(header.sha256).stat().st_size
    insert_new(session, Blob, {"sha256": header.sha256, "size": size, "kind": header.kind}, ["sha256"])
    require_files(service.blobs, {header.sha256})
    values = {
        "id": new_id(), "study_id": image.study_id, "sha256": header.sha256, "number": image.number,
        "kind": header.kind, "rows": header.rows, "columns": header.columns, "facts": header.facts,
    }  # fmt: skip
    insert_new(session, StudyImage, values, ["study_id", "sha256"])
    chosen = select(StudyImage).where(StudyImage.study_id == image.study_id, StudyImage.sha256 == header.sha256)
    return session.scalars(chosen).one()


def require_single(image: StudyImage) -> None:
    """Refuse work on a file of several frames as a whole.

    Raises:
        Problem: ``conflict``.
    """
    frames = image.facts.get("frames", 1)
    if frames > 1:
        raise Problem("conflict", f"The file holds {frames} frames.", "Ask for a read of one of its frames.")


def _require_frame(image: StudyImage, frame: int) -> None:
    frames = int(image.facts.get("frames", 1))
    if not 1 <= frame <= frames:
        raise Problem("not_found", f"expected a frame from 1 to {frames}", "Ask for one of them.")
