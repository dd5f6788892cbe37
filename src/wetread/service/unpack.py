"""What an upload consists of: single images, and ZIP archives of them, unpacked under guards.

Decided here: an archive is refused as a whole where its directory shows bad intent or bad luck (paths that leave the
folder, links, encryption, archives in it, too many files, too much when unpacked); a name in it never becomes a path
or a message, because names tell of patients.
"""

from __future__ import annotations

import contextlib
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from wetread.errors import expected
from wetread.imaging.load import SIDE_FILE_SUFFIXES, SIDE_FILES
from wetread.imaging.sniff import READABLE, kind_of
from wetread.service.blobs import BlobStore, Quarantined
from wetread.service.problems import Problem

__all__ = ["Limits", "Refusal", "Unpacked", "archive_files", "image_kind", "is_archive"]

_HEAD = 4096
_CHUNK = 1 << 20
_ZIP = "a ZIP archive or office document"
_RATIO = 200
_RATIO_FROM = 64 << 20
"""Films compress to a half, empty ones to a hundredth; above this an archive is a bomb."""

_PROGRAMS = (b"MZ", b"\x7fELF", b"#!", b"PK\x03\x04", b"%PDF", b"<", b"\xca\xfe\xba\xbe", b"GIF8", b"Rar!")
"""What the preamble of a DICOM file begins with where the file is something else as well (CVE-2019-11687)."""


@dataclass(frozen=True)
class Limits:
    """``total_bytes``: of an upload, and of all that an archive holds; ``file_bytes``: of one image."""

    total_bytes: int
    file_bytes: int
    files: int


@dataclass(frozen=True)
class Refusal:
    """File ``number`` of an upload, counted from 1 as they came, and why it was left out."""

    number: int
    message: str
    hint: str


@dataclass(frozen=True)
class Unpacked:
    """One image in quarantine: which file of the upload it was, and what kind its content is."""

    number: int
    file: Quarantined
    kind: str


def image_kind(file: Quarantined) -> str:
    """The kind of an image in quarantine, from its content.

    Raises:
        Problem: ``unsupported``: no image that is read, or a DICOM file that is a program or a page as well.
    """
    head = _head(file)
    kind = kind_of(head)
    if kind not in READABLE:
        raise _unsupported(kind if file.size else "an empty file")
    if kind == "DICOM" and head[128:132] == b"DICM" and head.lstrip()[:8].startswith(_PROGRAMS):
        raise _unsupported("a DICOM file that is a file of another kind as well")
    return kind


def is_archive(file: Quarantined) -> bool:
    """Whether the content is a ZIP archive."""
    return kind_of(_head(file)) == _ZIP


def archive_files(
    store: BlobStore, archive: Quarantined, limits: Limits, stack: contextlib.ExitStack
) -> Iterator[Quarantined]:
    """Unpack an archive file by file into quarantine, which ``stack`` empties; files beside images are left out.

    Raises:
        Problem: the archive is refused; see the module.
    """
    with _as_problem(), zipfile.ZipFile(archive.path) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir()]
        _check_directory(entries, archive.size, limits)
        left = limits.total_bytes
        for entry in entries:
            if _is_side_file(entry.filename):
                continue
            new = stack.enter_context(store.quarantine(min(left, limits.file_bytes)))
            with opened.open(entry) as stream:
                while chunk := stream.read(_CHUNK):
                    new.write(chunk)
            new.finish()
            if is_archive(new):
                raise _refused("an archive without archives in it", "one inside another", "unpack it once")
            left -= new.size
            yield new


def _check_directory(entries: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    if not entries:
        raise _refused("images in the archive", "none", "check what was packed")
    if len(entries) > limits.files:
        raise Problem("too_large", f"expected at most {limits.files} files in the archive, got {len(entries)}")
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes or (total > _RATIO_FROM and total > _RATIO * packed):
        got = f"an archive that claims {total} bytes when unpacked"
        raise Problem("too_large", f"expected at most {limits.total_bytes} bytes and no bomb, got {got}")
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in entry.filename[:2]:
            raise _refused("names within the archive", "a path that leaves it", "pack it again")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refused("files in the archive", "a link", "pack the file itself")
        if entry.flag_bits & 1:
            raise _refused("an archive without password", "an encrypted one", "unpack it first")


@contextlib.contextmanager
def _as_problem() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _refused("a whole ZIP archive", "a damaged one", "pack or fetch it again") from None


def _is_side_file(name: str) -> bool:
    last = PurePosixPath(name.replace("\\", "/")).name
    return last.startswith(".") or last in SIDE_FILES or PurePosixPath(last).suffix.lower() in SIDE_FILE_SUFFIXES


def _head(file: Quarantined) -> bytes:
    file.finish()
    with file.path.open("rb") as stream:
        return stream.read(_HEAD)


def _unsupported(got: str) -> Problem:
    return Problem("unsupported", f"expected a DICOM, PNG, JPEG or TIFF image, got {got}")


def _refused(what: str, got: str, cure: str) -> Problem:
    message, _, hint = expected(what, got, cure).partition("; ")
    return Problem("refused", message, hint.capitalize() + ".")
