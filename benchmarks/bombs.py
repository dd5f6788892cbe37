"""Bombs: small files that ask for much. Each must be refused with one of our errors, soon, and for little memory.

Every bomb goes through the door that a stranger's file comes in by: the importer (``load_image``), the node's
header reader, the upload of the service, or the import of a reader. It is opened in a process of its own, forked
from one that has the libraries loaded; memory is the peak of that process (VmHWM, set back before the bomb is opened).
The tests run the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from benchmarks.common import Figure, arguments, write_figures
from wetread.errors import OverBudget, WetreadError

__all__ = ["BOMBS", "MOST_BYTES", "MOST_S", "Outcome", "open_all"]

MOST_S, MOST_BYTES = 2.0, 512 << 20
_GIVE_UP_S = 60
EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
_CR = b"1.2.840.10008.5.1.4.1.1.1\0"
_MIB = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """What opening one bomb gave. ``error``: the class of the error, empty where the bomb was taken."""

    bomb: str
    door: str
    file_bytes: int
    error: str
    message: str
    ours: bool
    seconds: float
    cpu_s: float
    peak_bytes: int


# --- parts of DICOM files


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    """Explicit VR Little Endian, with a length of two or of four bytes as the VR wants."""
    value += bytes(len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, kind)
    if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def endless(tag: int, kind: bytes) -> bytes:
    """The head of an element of undefined length."""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, kind, 0, 0xFFFFFFFF)


IDENTITY = element(0x00080016, b"UI", _CR) + element(0x00080018, b"UI", b"1.2.3")
STUDY = element(0x0020000D, b"UI", b"1.2.4") + element(0x0020000E, b"UI", b"1.2.5")
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


def file_of(data: bytes, syntax: str = EXPLICIT) -> bytes:
    """A DICOM file around a data set."""
    meta = element(0x00020002, b"UI", _CR) + element(0x00020003, b"UI", b"1.2.3")
    meta += element(0x00020010, b"UI", syntax.encode())
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + data


def image_of(rows: int, columns: int, pixels: bytes, *, frames: int = 1) -> bytes:
    """The data set of a 16-bit film; ``pixels``: the whole element (7FE0,0010)."""

    def short(tag: int, value: int) -> bytes:
        return element(tag, b"US", struct.pack("<H", value))

    data = IDENTITY + STUDY + short(0x00280002, 1) + element(0x00280004, b"CS", b"MONOCHROME2")
    data += element(0x00280008, b"IS", str(frames).encode()) + short(0x00280010, rows) + short(0x00280011, columns)
    data += short(0x00280100, 16) + short(0x00280101, 16) + short(0x00280102, 15) + short(0x00280103, 0)
    return data + pixels


def encapsulated(frame: bytes) -> bytes:
    """Pixel Data of one fragment."""
    frame += bytes(len(frame) % 2)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    return endless(0x7FE00010, b"OB") + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def deflated(data: bytes, zeros_bytes: int, *, window: int = -zlib.MAX_WBITS) -> bytes:
    """``data`` and very many zeros behind it, deflated; a stream that was flushed can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    head = packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(_MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (zeros_bytes // _MIB) + packer.flush()


# --- the bombs


def deflated_pixels() -> bytes:
    """1 GiB of zeros in 1 MB."""
    pixels = endless(0x7FE00010, b"OW")[:8] + struct.pack("<I", 1 << 30)
    return file_of(deflated(image_of(64, 64, pixels), 1 << 30), DEFLATED)


def deflated_elements() -> bytes:
    """Eight million empty elements in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(IDENTITY) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(element(0x00091010, b"LO", b"") * 131_072) + packer.flush(zlib.Z_FULL_FLUSH)
    return file_of(head + block * 64 + packer.flush(), DEFLATED)


def many_elements() -> bytes:
    """Four million empty private elements."""
    return file_of(IDENTITY + element(0x00091010, b"LO", b"") * 4_000_000)


def many_items() -> bytes:
    """A sequence of four million empty items."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return file_of(IDENTITY + element(0x00283010, b"SQ", item * 4_000_000))


def deep_sequences() -> bytes:
    """Sequences nested 200,000 deep."""
    return file_of(IDENTITY + (endless(0x00283010, b"SQ") + ITEM) * 200_000)


def deep_unknown() -> bytes:
    """The same with a VR of UN, which readers take for Implicit VR (PS3.5 6.2.2)."""
    return file_of(IDENTITY + (endless(0x00091010, b"UN") + ITEM) * 200_000)


def many_values() -> bytes:
    """A window centre of ten million numbers, in Implicit VR, where a length has four bytes."""
    value = b"1\\" * 10_000_000
    data = struct.pack("<HHI", 0x28, 0x1050, len(value)) + value
    short = struct.pack("<HHIH", 0x28, 0x10, 2, 64) + struct.pack("<HHIH", 0x28, 0x11, 2, 64)
    return file_of(short + data, "1.2.840.10008.1.2")


def many_numbers() -> bytes:
    """A padding value of 20 million numbers."""
    value = b"\1\0" * 20_000_000
    return file_of(struct.pack("<HHI", 0x28, 0x120, len(value)) + value, "1.2.840.10008.1.2")


def claimed_size() -> bytes:
    """60,000 x 60,000 pixels claimed in a kilobyte."""
    return file_of(image_of(60_000, 60_000, element(0x7FE00010, b"OW", bytes(100))))


def claimed_frames() -> bytes:
    """Two thousand million frames claimed."""
    return file_of(image_of(512, 512, element(0x7FE00010, b"OW", bytes(100)), frames=2**31 - 1))


def rle() -> bytes:
    """An RLE frame of 11,000 x 11,000 pixels, which is in the budget, in 200 bytes."""
    frame = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"
    return file_of(image_of(11_000, 11_000, encapsulated(frame)), "1.2.840.10008.1.2.5")


def jpeg_2000() -> bytes:
    """A codestream of 60,000 x 60,000 under a header of 64 x 64."""
    return file_of(image_of(64, 64, encapsulated(j2k(60_000, 60_000))), "1.2.840.10008.1.2.4.90")


def jpeg_2000_tiles() -> bytes:
    """11,000 x 11,000 pixels in tiles of 1 x 1: 121 million of them."""
    return file_of(image_of(11_000, 11_000, encapsulated(j2k(11_000, 11_000, tile=1))), "1.2.840.10008.1.2.4.90")


def j2k(rows: int, columns: int, tile: int = 0) -> bytes:
    """SOC, SIZ, COD, QCD and one empty tile part (ISO 15444-1 annex A)."""
    wide, high = tile or columns, tile or rows
    siz = struct.pack(">HIIIIIIIIHBBB", 0, columns, rows, 0, 0, wide, high, 0, 0, 1, 15, 1, 1)
    cod = bytes((0, 0, 0, 1, 0, 0, 4, 4, 0, 1))
    parts = [(0xFF51, siz), (0xFF52, cod), (0xFF5C, bytes((0x40, 0x40)))]
    body = b"".join(struct.pack(">HH", marker, len(data) + 2) + data for marker, data in parts)
    part = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14, 0, 1) + b"\xff\x93"
    return b"\xff\x4f" + body + part + b"\xff\xd9"


def jpeg_lossless() -> bytes:
    """A lossless JPEG of 65,500 x 65,500 under a header of 64 x 64."""
    frame = b"\xff\xd8" + struct.pack(">HHBHHB", 0xFFC3, 11, 16, 65_500, 65_500, 1) + b"\1\x11\0" + bytes(64)
    return file_of(image_of(64, 64, encapsulated(frame)), "1.2.840.10008.1.2.4.70")


def jpeg_ls() -> bytes:
    """A JPEG-LS of 60,000 x 60,000 under a header of 64 x 64."""
    frame = b"\xff\xd8" + struct.pack(">HHBHHB", 0xFFF7, 11, 16, 60_000, 60_000, 1) + b"\1\x11\0" + bytes(64)
    return file_of(image_of(64, 64, encapsulated(frame)), "1.2.840.10008.1.2.4.80")


def deflated_frame() -> bytes:
    """A deflated frame (PS3.5 A.4.12) of 1 GiB under a header of 64 x 64."""
    packed = deflated(b"", 1 << 30)
    return file_of(image_of(64, 64, encapsulated(packed)), "1.2.840.10008.1.2.8.1")


def png() -> bytes:
    """A PNG of 60,000 x 60,000 gray pixels, all of them there, in 3.5 MB of zlib."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = deflated(b"", 60_001 * 60_000 // 8, window=zlib.MAX_WBITS)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png_text() -> bytes:
    """A small PNG with 100 MB of text in it."""
    out, info = io.BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("t", "a" * (100 << 20), zip=True)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def tiff() -> bytes:
    """A TIFF of 30,000 x 30,000 in one deflated strip."""
    packed = deflated(b"", 900 * _MIB, window=zlib.MAX_WBITS)
    entries = [(256, 4, 30_000), (257, 4, 30_000), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 200)]
    entries += [(277, 3, 1), (278, 4, 30_000), (279, 4, len(packed))]
    table = struct.pack("<H", len(entries))
    table += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + table).ljust(200, b"\0") + packed


def nifti() -> bytes:
    """1 GiB of a volume, gzipped."""
    return deflated(struct.pack("<i", 348).ljust(344, b"\0") + b"n+1\0" + bytes(4), 1 << 30, window=31)


def zipped(files: dict[str, bytes]) -> bytes:
    """A ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def zip_of_zeros() -> bytes:
    """1 GiB of zeros, zipped in files of 256 MiB."""
    return zipped({f"{n}.dcm": bytes(256 * _MIB) for n in range(4)})


def zip_that_lies() -> bytes:
    """256 MiB of zeros whose entry says ten bytes."""
    data = bytearray(zipped({"1.dcm": bytes(256 * _MIB)}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.rindex(mark) if mark[2] == 1 else data.index(mark)
        data[place + at : place + at + 4] = struct.pack("<I", 10)
    return bytes(data)


def zip_of_many() -> bytes:
    """A hundred thousand empty files."""
    return zipped({f"{n}.dcm": b"" for n in range(100_000)})


# --- the doors


def importer(path: Path) -> None:
    """As ``wetread read``, ``wetread dataset`` and the workers open a file."""
    from wetread.imaging import load_image

    load_image(path)


def node_header(path: Path) -> None:
    """As the node opens what has arrived; the data set stands behind the file meta information."""
    from wetread.pacs.header import object_header

    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    syntax = DEFLATED if DEFLATED.encode() in data[:start] else EXPLICIT
    header = object_header(path, start, syntax)
    if not header.study:
        raise OverBudget("expected a data set with its study, got none; send it again")  # what the node answers A900


def upload(path: Path) -> None:
    """As the service unpacks what is sent to it."""
    from wetread.errors import ImageRefused
    from wetread.service.blobs import BlobStore
    from wetread.service.problems import Problem
    from wetread.service.unpack import Limits, archive_files

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, contextlib.ExitStack() as stack:
        store = BlobStore(Path(folder))
        archive = stack.enter_context(store.quarantine(1 << 30))
        archive.write(path.read_bytes())
        archive.finish()
        try:
            for _ in archive_files(store, archive, Limits(2 << 30, 512 << 20, 10_000), stack):
                pass
        except Problem as problem:
            raise ImageRefused(str(problem)) from None


def bundle(path: Path) -> None:
    """As ``wetread models import`` opens an archive."""
    from wetread.models.bundle import import_reader

    import_reader(path.rename(path.with_suffix(".zip")), path.parent / "shelf")


BOMBS: dict[str, tuple[Callable[[], bytes], Callable[[Path], None]]] = {
    "deflated data set, importer": (deflated_pixels, importer),
    "deflated empty elements, importer": (deflated_elements, importer),
    "deflated empty elements, node": (deflated_elements, node_header),
    "element count, importer": (many_elements, importer),
    "element count, node": (many_elements, node_header),
    "item count, importer": (many_items, importer),
    "item count, node": (many_items, node_header),
    "nested sequences, importer": (deep_sequences, importer),
    "nested sequences, node": (deep_sequences, node_header),
    "nested unknown elements, importer": (deep_unknown, importer),
    "nested unknown elements, node": (deep_unknown, node_header),
    "ten million values of one element": (many_values, importer),
    "20 million numbers of one element": (many_numbers, importer),
    "claimed size": (claimed_size, importer),
    "claimed frames": (claimed_frames, importer),
    "RLE": (rle, importer),
    "JPEG 2000 dimensions": (jpeg_2000, importer),
    "JPEG 2000 tiles": (jpeg_2000_tiles, importer),
    "JPEG lossless dimensions": (jpeg_lossless, importer),
    "JPEG-LS dimensions": (jpeg_ls, importer),
    "deflated frame": (deflated_frame, importer),
    "PNG dimensions": (png, importer),
    "PNG text": (png_text, importer),
    "TIFF strip": (tiff, importer),
    "gzipped volume": (nifti, importer),
    "zip of zeros, upload": (zip_of_zeros, upload),
    "zip that lies, upload": (zip_that_lies, upload),
    "zip of many files, upload": (zip_of_many, upload),
    "zip of zeros, reader": (zip_of_zeros, bundle),
}
"""Name to what makes it and the door it is handed in at."""


def open_all(names: list[str]) -> Iterator[Outcome]:
    """Open bombs, each in a process of its own."""
    _warm_up()
    with tempfile.TemporaryDirectory() as folder:
        made: dict[Callable[[], bytes], bytes] = {}
        for number, name in enumerate(names):
            make, door = BOMBS[name]
            made = made if make in made else {make: make()}
            path = Path(folder) / f"{number}"
            path.write_bytes(made[make])
            yield _opened(name, path, door)


def _warm_up() -> None:
    """Load the libraries, so that their time and memory are not counted for a bomb."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("a", file_of(image_of(64, 64, element(0x7FE00010, b"OW", bytes(8192))))), ("b", b"PK\3\4")):
            path = Path(folder) / name
            path.write_bytes(data)
            for door in (importer, node_header, upload, bundle):
                with contextlib.suppress(Exception):
                    door(path)
        out = io.BytesIO()
        Image.fromarray(np.eye(64, dtype=np.uint8)).save(out, "TIFF", compression="tiff_adobe_deflate")
        path.with_name("c").write_bytes(out.getvalue())
        importer(path.with_name("c"))
    import imagecodecs

    imagecodecs.jpeg8_encode(np.zeros((64, 64), np.uint8))


def _opened(name: str, path: Path, door: Callable[[Path], None]) -> Outcome:
    reading, writing = os.pipe()
    size = path.stat().st_size
    child = os.fork()
    if child == 0:
        _child(writing, name, path, door)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if text:
        return Outcome(**{**json.loads(text), "file_bytes": size})
    code = os.waitstatus_to_exitcode(status)
    return Outcome(name, door.__name__, size, f"exit code {code}", "", False, float(_GIVE_UP_S), float(_GIVE_UP_S), 0)


def _child(writing: int, name: str, path: Path, door: Callable[[Path], None]) -> None:
    """Open the bomb, tell the parent and leave at once."""
    signal.alarm(_GIVE_UP_S)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    Path("/proc/self/clear_refs").write_text("5")
    error, began, used = None, time.perf_counter(), time.process_time()
    try:
        door(path)
    except BaseException as caught:
        error = caught
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - used
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    kind = "" if error is None else type(error).__name__
    said = Outcome(
        name, door.__name__, 0, kind, str(error or "")[:200], isinstance(error, WetreadError), seconds, cpu_s,
        int(peak.split()[1]) << 10,
    )  # fmt: skip
    with os.fdopen(writing, "w") as answer:
        answer.write(json.dumps(asdict(said)))
    os._exit(0)


def main() -> None:
    parser = arguments(__doc__, "results/bombs.csv")
    parser.add_argument("--only", nargs="+", choices=list(BOMBS), default=list(BOMBS), metavar="BOMB")
    parser.add_argument("--json", action="store_true", help="one JSON line for each on stdout, and no CSV")
    asked = parser.parse_args()
    outcomes = []
    for outcome in open_all(asked.only):
        outcomes.append(outcome)
        cost = f"{outcome.seconds:.2f} s, CPU {outcome.cpu_s:.2f} s, {outcome.peak_bytes >> 20} MiB"
        line = f"{outcome.bomb}: {outcome.error} {cost}"
        print(json.dumps(asdict(outcome)) if asked.json else line, flush=True)
    if asked.json:
        sys.exit(0)
    figures = []
    for one in outcomes:
        protocol = f"file of {one.file_bytes:,} bytes, {one.door}; {one.error or 'TAKEN'}"
        figures.append(Figure(f"{one.bomb}: time", round(one.seconds, 3), "s", protocol, bar=f"<= {MOST_S:g}"))
        peak = round(one.peak_bytes / _MIB, 1)
        figures.append(Figure(f"{one.bomb}: memory", peak, "MiB", protocol, bar=f"<= {MOST_BYTES >> 20}"))
    refused = sum(one.ours for one in outcomes)
    protocol = "bombs refused with an error of ours"
    figures.append(Figure("refused", refused, "bombs", protocol, n=len(outcomes), bar=f">= {len(outcomes)}"))
    write_figures(asked.out, figures)


if __name__ == "__main__":
    main()
