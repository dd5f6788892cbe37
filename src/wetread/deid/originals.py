"""The way back, for who holds the key: sealed originals of the headers and of what was blacked out.

Decided here: originals are kept only where they are asked for, in one file beside the result, one line for each file,
each encrypted and authenticated with a key derived from the key file (Fernet: AES-128-CBC and HMAC-SHA256). Without
the key file the lines say nothing, not even which file they belong to.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from wetread.deid.key import Key
from wetread.deid.pixels import EXPLICIT_LITTLE, Frames
from wetread.errors import InputRefused, UsageError, expected
from wetread.imaging.header import quiet

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

__all__ = ["Originals", "Sealer", "open_originals", "restore", "sealed_of"]

Originals = Mapping[str, dict[str, Any]]
"""SOP Instance UID of a de-identified file -> what it takes to undo it."""

_PIXEL_KEYWORDS = (
    *("PhotometricInterpretation", "PlanarConfiguration", "SamplesPerPixel", "BitsAllocated", "LossyImageCompression"),
)


def sealed_of(out: Path) -> Path:
    """The file beside a result that holds the sealed originals."""
    return out.resolve().parent / f"{out.resolve().name}-originals.sealed"


class Sealer:
    """Appends sealed originals to a file that its owner alone may read."""

    def __init__(self, path: Path, key: Key) -> None:
        self.path = path
        self._box = _box(key)
        path.touch(mode=0o600, exist_ok=True)

    def add(self, cleaned: Dataset, original: Dataset, frames: Frames | None) -> None:
        """Seal what it takes to undo one file; ``original`` is its header, without pixels."""
        patches = [] if frames is None else list(zip(frames.patches, frames.before, strict=True))
        line = {
            "instance": str(cleaned.SOPInstanceUID),
            "header": _packed(_bytes_of(original)),
            "patches": [
                {
                    "box": [p.left, p.top, p.right, p.bottom],
                    "dtype": before.dtype.str,
                    "pixels": _packed(before.tobytes()),
                }
                for p, before in patches
            ],
        }
        with self.path.open("ab") as stream:
            stream.write(self._box.encrypt(json.dumps(line).encode()) + b"\n")


def open_originals(sealed: Path, key: Key) -> Originals:
    """Open a file of sealed originals; where a file was sealed twice, the last one holds.

    Raises:
        UsageError: it is not there, was sealed with another key, or was changed.
    """
    from cryptography.fernet import InvalidToken

    box = _box(key)
    try:
        lines = sealed.read_bytes().splitlines()
    except OSError as error:
        got = f"{type(error).__name__} at {sealed}"
        raise UsageError(expected("a file of sealed originals", got, "name it with --originals")) from None
    try:
        found = [json.loads(box.decrypt(line)) for line in lines]
    except (InvalidToken, ValueError):
        cure = "use the key file of that run"
        raise UsageError(expected(f"originals sealed with this key in {sealed}", "others", cure)) from None
    return {one["instance"]: one for one in found}


def restore(path: Path, originals: Originals) -> Dataset:
    """Undo one de-identified file: its original header, and the pixels below what was blacked out.

    Pixels that were decoded to be blacked out stay uncompressed; everything else is as it was.

    Raises:
        InputRefused: the file is no DICOM file, or its original is not among the sealed ones.
    """
    with quiet():
        try:
            cleaned = dcmread(path)
            found = originals.get(str(cleaned.SOPInstanceUID))
        except Exception:  # pydicom lets many classes escape
            raise InputRefused(expected("a DICOM file", f"none in {path}", "name one of the result")) from None
        if found is None:
            cure = "name the sealed file of that result with --originals"
            raise InputRefused(expected(f"the original of {path.name}", "none among the sealed ones", cure))
        original = dcmread(BytesIO(_unpacked(found["header"])), force=True)
        if "PixelData" in cleaned:
            _give_back(original, cleaned, found["patches"])
        original.file_meta = FileMetaDataset()
        original.file_meta.TransferSyntaxUID = cleaned.file_meta.TransferSyntaxUID
        original.file_meta.MediaStorageSOPClassUID = original.SOPClassUID
        original.file_meta.MediaStorageSOPInstanceUID = original.SOPInstanceUID
    return original


def _give_back(original: Dataset, cleaned: Dataset, patches: list[dict[str, Any]]) -> None:
    """Pixels of the de-identified file with the patches undone, last one first."""
    for keyword in _PIXEL_KEYWORDS:
        if keyword in cleaned:
            original[keyword] = cleaned[keyword]
    original["PixelData"] = cleaned["PixelData"]
    if not patches:
        return
    shape = [int(cleaned.get("NumberOfFrames") or 1), int(cleaned.Rows), int(cleaned.Columns)]
    dtype = np.dtype(patches[0]["dtype"])
    if int(cleaned.get("SamplesPerPixel") or 1) == 3:
        shape.append(3)
    count = int(np.prod(shape))
    one_bit = int(cleaned.BitsAllocated) == 1
    raw = np.frombuffer(cleaned.PixelData, np.uint8)
    values = np.unpackbits(raw, count=count, bitorder="little") if one_bit else raw[: count * dtype.itemsize]
    values = values.view(dtype).reshape(shape).copy()
    for patch in reversed(patches):
        left, top, right, bottom = patch["box"]
        area = values[:, top:bottom, left:right]
        area[...] = np.frombuffer(_unpacked(patch["pixels"]), dtype).reshape(area.shape)
    data = np.packbits(values.reshape(-1), bitorder="little").tobytes() if one_bit else values.tobytes()
    original.PixelData = data + b"\0" * (len(data) % 2)
    original["PixelData"].VR = cleaned["PixelData"].VR


def _box(key: Key) -> Fernet:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        cure = "install it: pip install 'wetread[deid]'"
        raise UsageError(expected("the package cryptography", "none", cure)) from None
    return Fernet(key.sealing_key())


def _bytes_of(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE)
    with quiet():
        dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return buffer.getvalue()


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
