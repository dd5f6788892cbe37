"""What ``wetread segment --out DIR`` writes: masks, overlays, one line of JSON for each image, and a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.cli.result_files import FAILURES, Slugs, safe_name, write_failures

if TYPE_CHECKING:
    from wetread.models.card import SegmenterCard
    from wetread.reading.feed import ReadFailure
    from wetread.reading.organs import OrganReading, Segmented
    from wetread.reporting.facts import OrganItem

__all__ = ["ORGANS_FILE", "SegmentFolder"]

ORGANS_FILE = "organs.jsonl"
_PAGE_PX = 512


class SegmentFolder:
    """Collect results below ``folder`` (a scratch folder that is renamed when all went well)."""

    def __init__(self, folder: Path, card: SegmenterCard, formats: Sequence[str]) -> None:
        self.folder = folder
        self.card = card
        self.formats = formats
        self._slugs = Slugs()
        self._items: list[OrganItem] = []
        for name in ("masks", "overlays"):
            (folder / name).mkdir()
        (folder / ORGANS_FILE).touch()

    def add(self, result: Segmented) -> OrganReading:
        """Write the files of one image; return its reading with their paths filled in."""
        from wetread.reading.organ_picture import organ_picture
        from wetread.reporting.facts import OrganItem

        slug = self._slugs.take(result.source.name)
        picture = organ_picture(result.image.pixels, result.masks)
        picture.save(self.folder / "overlays" / f"{slug}.png", compress_level=3)
        picture.thumbnail((_PAGE_PX, _PAGE_PX))
        small = io.BytesIO()
        picture.save(small, "JPEG", quality=85)
        files = {organ: {"overlay": f"overlays/{slug}.png"} for organ in result.masks}
        for kind in self.formats:
            for organ, name in self._write(kind, slug, result).items():
                files[organ][kind] = name
        organs = tuple(one.model_copy(update={"files": files[one.organ]}) for one in result.reading.organs)
        warnings = self._warnings(result)
        reading = result.reading.model_copy(update={"organs": organs, "warnings": warnings})
        with (self.folder / ORGANS_FILE).open("a", encoding="utf-8") as file:
            file.write(reading.model_dump_json() + "\n")
        self._items.append(OrganItem(reading=reading, picture=small.getvalue()))
        return reading

    def finish(self, failures: Sequence[ReadFailure]) -> None:
        """Write the page and ``failures.csv``."""
        from wetread.cli.segment_report import segmenter_summary
        from wetread.reporting.facts import FailedFile, OrganReport
        from wetread.reporting.html import render_organs

        report = OrganReport(
            items=tuple(self._items),
            failures=tuple(FailedFile(path=one.name, reason=one.message) for one in failures),
            segmenter=segmenter_summary(self.card),
        )
        (self.folder / "index.html").write_text(render_organs(report), encoding="utf-8")
        write_failures(self.folder / FAILURES, failures)

    def _write(self, kind: str, slug: str, result: Segmented) -> dict[str, str]:
        """Write the masks in one format; return the file of each organ."""
        if kind == "dicom-seg":
            return self._write_seg(slug, result)
        return {organ: self._write_one(kind, f"{slug}.{safe_name(organ)}", organ, result) for organ in result.masks}

    def _write_one(self, kind: str, stem: str, organ: str, result: Segmented) -> str:
        from PIL import Image

        from wetread.imaging.nifti import write_mask_nifti

        mask = result.masks[organ]
        name = f"masks/{stem}" + (".png" if kind == "png" else ".nii.gz")
        if kind == "png":
            Image.fromarray(mask).save(self.folder / name, compress_level=3)
        else:
            write_mask_nifti(mask, result.image.facts.spacing_mm, self.folder / name)
        return name

    def _write_seg(self, slug: str, result: Segmented) -> dict[str, str]:
        from wetread.pacs.segmentation import write_segmentation

        if not self._can_be_seg(result):
            return {}
        written = write_segmentation(
            result.source.path,
            result.masks,
            self.folder / "masks" / f"{slug}.seg.dcm",
            algorithm=self.card.name,
            version=f"{self.card.version}-{self.card.sha256[:12]}",
            confidence={one.organ: one.confidence for one in result.reading.organs},
        )
        return {organ: f"masks/{slug}.seg.dcm" for organ in written.segments}

    def _can_be_seg(self, result: Segmented) -> bool:
        return result.image.facts.format == "DICOM" and any(mask.any() for mask in result.masks.values())

    def _warnings(self, result: Segmented) -> tuple[str, ...]:
        if "dicom-seg" in self.formats and not self._can_be_seg(result):
            why = "the image is no DICOM file" if result.image.facts.format != "DICOM" else "all masks are empty"
            return (*result.reading.warnings, f"No DICOM SEG was written: {why}.")
        return result.reading.warnings
