"""What ``wetread read --out DIR`` writes: one page for each study, an overview, tables and pictures.

``reads.jsonl`` and ``failures.csv`` are for programs, ``index.html`` and ``studies/`` for people,
``heatmaps/`` holds each film with the heat on it. Pictures wait on disk until their study is complete.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import wetread
from wetread.cli.case_pictures import CaseSpool
from wetread.cli.result_files import FAILURES, Slugs, safe_name, write_failures
from wetread.types import Neighbour, Read

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from wetread.models.card import ReaderCard
    from wetread.reading.feed import ReadFailure
    from wetread.reading.read import ReadResult
    from wetread.reporting.facts import ReaderSummary, ReadWithPictures

__all__ = ["FAILURES", "INDEX", "READS", "ReadFolder", "over", "reader_summary"]

READS, INDEX = "reads.jsonl", "index.html"
_THUMBNAIL_PX = 96
_NORMAL_WORDS = {"normal", "healthy", "negative", "no finding", "no_finding"}


@dataclass(frozen=True, slots=True)
class _Kept:
    """One read whose pictures wait in the spool under its slug."""

    slug: str
    read: Read
    labels: tuple[str, ...]
    thumbnail: bytes


@dataclass(slots=True)
class ReadFolder:
    """Collect results below ``folder`` (a scratch folder that is renamed when all went well)."""

    folder: Path
    card: ReaderCard
    _studies: dict[str, list[_Kept]] = field(default_factory=dict)
    _failures: list[ReadFailure] = field(default_factory=list)
    _slugs: Slugs = field(default_factory=Slugs)
    _cases: CaseSpool = field(init=False)

    def __post_init__(self) -> None:
        self._cases = CaseSpool(self.folder / ".spool")
        for part in ("studies", "heatmaps", ".spool"):
            (self.folder / part).mkdir()
        (self.folder / READS).touch()

    def add(self, result: ReadResult) -> Read:
        """Keep one result; return its read with the paths of the heat maps filled in."""
        slug = self._slugs.take(result.read.image.name)
        film = result.film_png or b""
        (self.folder / ".spool" / slug).write_bytes(film)
        labels = []
        for reading in result.read.labels:
            heat = result.heatmaps.get(reading.label)
            if heat is None or reading.evidence is None:
                labels.append(reading)
                continue
            name = f"heatmaps/{slug}.{safe_name(reading.label)}.png"
            (self.folder / name).write_bytes(over(film, heat))
            (self.folder / ".spool" / f"{slug}.{safe_name(reading.label)}").write_bytes(heat)
            evidence = reading.evidence.model_copy(update={"heatmap": name})
            labels.append(reading.model_copy(update={"evidence": evidence}))
        for case in _cases_of(result.read):
            self._cases.take(case.file)  # while a bar is shown, not when the pages are written
        read = result.read.model_copy(update={"labels": tuple(labels)})
        with (self.folder / READS).open("a", encoding="utf-8") as file:
            file.write(read.model_dump_json() + "\n")
        kept = _Kept(slug, read, tuple(result.heatmaps), _thumbnail(film))
        self._studies.setdefault(read.image.study_uid or f"file {slug}", []).append(kept)
        return read

    def fail(self, failure: ReadFailure) -> None:
        """Record a file that could not be read."""
        self._failures.append(failure)

    def finish(self) -> None:
        """Write the pages and ``failures.csv``, and drop the spool."""
        from wetread.reporting.facts import FailedFile, Worklist, WorklistEntry
        from wetread.reporting.html import render_index

        created = datetime.now(UTC).replace(microsecond=0)
        entries = []
        for kept in self._studies.values():
            href = f"studies/{kept[0].slug}.html"
            title = kept[0].read.image.name + (f" and {len(kept) - 1} more" if len(kept) > 1 else "")
            (self.folder / href).write_text(self._page(title, kept, created), encoding="utf-8")
            reads = tuple(one.read for one in kept)
            entries.append(WorklistEntry(title=title, href=href, reads=reads, thumbnail=kept[0].thumbnail))
        worklist = Worklist(
            title="Reads",
            created=created,
            reader=reader_summary(self.card),
            entries=tuple(entries),
            failures=tuple(FailedFile(path=one.name, reason=one.message) for one in self._failures),
            wetread_version=wetread.__version__,
        )
        (self.folder / INDEX).write_text(render_index(worklist), encoding="utf-8")
        write_failures(self.folder / FAILURES, self._failures)
        shutil.rmtree(self.folder / ".spool")

    def _page(self, title: str, kept: Iterable[_Kept], created: datetime) -> str:
        from wetread.reporting.facts import StudyReport
        from wetread.reporting.html import render_read

        reads = tuple(self._with_pictures(one) for one in kept)
        return render_read(
            StudyReport(
                title=title,
                study_uid=reads[0].read.image.study_uid,
                reads=reads,
                created=created,
                reader=reader_summary(self.card),
                wetread_version=wetread.__version__,
            )
        )

    def _with_pictures(self, kept: _Kept) -> ReadWithPictures:
        from wetread.reporting.facts import ReadWithPictures

        spool = self.folder / ".spool"
        heat: Mapping[str, bytes] = {
            label: (spool / f"{kept.slug}.{safe_name(label)}").read_bytes() for label in kept.labels
        }
        cases = tuple(self._cases.take(case.file) for case in _cases_of(kept.read))
        film = (spool / kept.slug).read_bytes()
        return ReadWithPictures(read=kept.read, film_png=film, heatmaps=dict(heat), cases=cases)


def _cases_of(read: Read) -> tuple[Neighbour, ...]:
    return read.similar.cases if read.similar else ()


def reader_summary(card: ReaderCard) -> ReaderSummary:
    """What the pages say about the reader, from its card alone."""
    from wetread.reporting.facts import ReaderSummary

    return ReaderSummary(
        name=card.name,
        intended_use=card.intended_use,
        population=card.data.population,
        limits=card.limits,
        licence=card.licence,
        normal_labels=tuple(label for label in card.labels if label.lower() in _NORMAL_WORDS),
    )


def over(film: bytes, heat: bytes) -> bytes:
    """Return the film with its heat on it, both PNG."""
    from PIL import Image

    with Image.open(io.BytesIO(film)) as under, Image.open(io.BytesIO(heat)) as colours:
        base = under.convert("RGBA")
        base.alpha_composite(colours.resize(base.size, Image.Resampling.BILINEAR))
    return _png(base.convert("RGB"))


def _thumbnail(film: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(film)) as picture:
        picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        return _png(picture)


def _png(picture: PilImage) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG", compress_level=3)
    return target.getvalue()
