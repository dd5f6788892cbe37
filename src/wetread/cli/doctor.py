"""``wetread doctor``: what of this installation works, and the cure for each thing that does not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wetread.settings import Settings

__all__ = ["Check", "command", "examine"]

_LOW_DISK_BYTES = 2 << 30
"""A training run with its cache of features needs about this much."""

_SIDE_PX = 32
_WIDTH = 22
_STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red"}


class Check(BaseModel):
    """One line: what was looked at, how it is, what was found, and the cure if it is not well."""

    model_config = ConfigDict(frozen=True)

    what: str
    status: Literal["ok", "warn", "broken"]
    found: str
    cure: str = ""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
) -> int:
    """Check versions, networks, decoders, threads, disk and readers. Exit code 1 if something is broken."""
    from wetread.cli.console import print_json, stdout
    from wetread.settings import load_settings

    checks = list(examine(load_settings()))
    broken = any(check.status == "broken" for check in checks)
    if as_json:
        print_json({"well": not broken, "checks": [check.model_dump(mode="json") for check in checks]})
        return int(broken)
    console = stdout()
    for check in checks:
        console.print(f"{check.status:7}", style=_STYLES[check.status], end="")
        console.print(f"{check.what:{_WIDTH}} {check.found}", markup=False, soft_wrap=True)
        if check.cure:
            console.print(f"{'':7}{'':{_WIDTH}} do: {check.cure}", markup=False, soft_wrap=True)
    console.print("something is broken" if broken else "all is well", style="bold")
    return int(broken)


def examine(settings: Settings) -> Iterator[Check]:
    """Yield every check in the order of a first use; none of them raises."""
    parts: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("versions", _versions),
        ("torch and torchvision", _torch_pair),
        ("decoders", _decoders),
        ("machine", lambda: _machine(settings)),
        ("disk", lambda: _disk(settings)),
        ("readers", lambda: _readers(settings)),
    )
    for name, part in parts:
        try:
            yield from part()
        except Exception as error:  # a check that fails is a finding
            found = f"{type(error).__name__}: {error}".splitlines()[0]
            yield Check(what=name, status="broken", found=found, cure="wetread --debug doctor; then set up again")


def _versions() -> Iterator[Check]:
    from wetread import provenance

    commit = provenance.source_commit()
    wetread = provenance.library_versions(["wetread"]).get("wetread", "not installed")
    yield Check(what="wetread", status="ok", found=f"{wetread}{f', commit {commit[:12]}' if commit else ''}")
    python = f"{platform.python_version()}, {sys.executable}"
    yield Check(what="python", status="ok", found=python)
    versions = provenance.library_versions()
    for name in provenance.LIBRARIES:
        if name in versions:
            yield Check(what=name, status="ok", found=versions[name])
        else:
            yield Check(what=name, status="broken", found="not installed", cure="set up again: make setup")


def _torch_pair() -> Iterator[Check]:
    """The two come as a pair of builds; a wrong pair imports but lacks the compiled operators."""
    what = "torch and torchvision"
    try:
        import torch
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
        kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        found = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
        cure = "install the two together: make clean setup"
        yield Check(what=what, status="broken", found=found, cure=cure)
        return
    if kept != [0, 2]:
        found = f"non-maximum suppression kept boxes {kept} instead of [0, 2]"
        yield Check(what=what, status="broken", found=found, cure="install anew: make clean setup")
        return
    devices = ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check(what=what, status="ok", found=f"fit each other; devices: {', '.join(devices)}")


def _decoders() -> Iterator[Check]:
    """Encode and decode a small ramp in every compressed transfer syntax that is claimed."""
    from pydicom.uid import UID

    from wetread.imaging.codecs import compressed_syntaxes

    for syntax in compressed_syntaxes():
        what, name = f"decoder {syntax.removeprefix('1.2.840.10008.')}", UID(syntax).name
        try:
            allowed, worst = _round_trip(syntax)
        except Exception as error:  # a codec that does not load raises what it likes
            found = f"{name}: {type(error).__name__}"
            yield Check(what=what, status="broken", found=found, cure="install anew: make clean setup")
            continue
        if worst > allowed:
            found = f"{name}: off by {worst} grey levels"
            yield Check(what=what, status="broken", found=found, cure="install anew: make clean setup")
        else:
            yield Check(what=what, status="ok", found=name)


def _round_trip(syntax: str) -> tuple[int, int]:
    """Return the allowed and the largest difference in grey levels after a round trip of 8-bit pixels."""
    import numpy as np

    from wetread.imaging.codecs import Layout, decode_frame

    ramp = np.add.outer(np.arange(_SIDE_PX), 3 * np.arange(_SIDE_PX)).astype(np.uint8)
    layout = Layout("ramp", _SIDE_PX, _SIDE_PX, 1, 8, "MONOCHROME2")
    allowed, encode = _encoders()[syntax]
    decoded = decode_frame(encode(ramp), syntax, layout)
    return allowed, int(np.abs(decoded.astype(int) - ramp).max())


def _encoders() -> dict[str, tuple[int, Callable[[NDArray[np.uint8]], bytes]]]:
    """Transfer syntax UID -> (largest difference allowed in grey levels, encoder)."""
    import imagecodecs

    near, exact = 3, 0
    jpeg = (near, lambda pixels: bytes(imagecodecs.jpeg8_encode(pixels, level=98)))
    lossless = (exact, lambda pixels: bytes(imagecodecs.jpeg8_encode(pixels, lossless=True)))
    jpeg_ls = (exact, lambda pixels: bytes(imagecodecs.jpegls_encode(pixels)))
    jpeg_2000 = (exact, lambda pixels: bytes(imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0)))
    htj2k = (exact, lambda pixels: bytes(imagecodecs.htj2k_encode(pixels, reversible=True)))
    families = {
        jpeg: ("4.50", "4.51"),
        lossless: ("4.57", "4.70"),
        jpeg_ls: ("4.80", "4.81"),
        jpeg_2000: ("4.90", "4.91"),
        htj2k: ("4.201", "4.202", "4.203"),
        (exact, _run_lengths): ("5",),
        (exact, _deflated): ("8.1",),
    }
    return {f"1.2.840.10008.1.2.{tail}": family for family, tails in families.items() for tail in tails}


def _run_lengths(pixels: NDArray[np.uint8]) -> bytes:
    from pydicom.pixels.encoders.base import RLELosslessEncoder

    rows, columns = pixels.shape
    facts = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "number_of_frames": 1}
    facts |= {"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0}
    return RLELosslessEncoder.encode(
        pixels, encoding_plugin="pydicom", photometric_interpretation="MONOCHROME2", **facts
    )


def _deflated(pixels: NDArray[np.uint8]) -> bytes:
    """One raw deflate stream, PS3.5 A.4.12."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(pixels.tobytes()) + packer.flush()


def _machine(settings: Settings) -> Iterator[Check]:
    from wetread import provenance, runtime

    facts = provenance.machine_facts()
    threads = settings.runtime.threads or runtime.thread_count()
    status: Literal["ok", "warn"] = "ok" if threads <= facts["cores"] else "warn"
    cure = "" if status == "ok" else f"set runtime.threads or OMP_NUM_THREADS to at most {facts['cores']}"
    found = f"{threads} of {facts['cores']} cores, {facts['cpu']}"
    yield Check(what="threads", status=status, found=found, cure=cure)
    if runtime.keep_freed_memory():
        yield Check(what="allocator", status="ok", found="freed memory is kept: training at full speed")
    else:
        cure = "nothing to mend; on Linux with glibc training is two to three times faster"
        yield Check(what="allocator", status="warn", found="no glibc", cure=cure)


def _disk(settings: Settings) -> Iterator[Check]:
    for name, folder in settings.paths.model_dump().items():
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        what, found = f"paths.{name}", f"{folder}, {free / 2**30:.1f} GiB free"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            cure = f"give the right to write {there}, or set paths.{name} elsewhere"
            yield Check(what=what, status="broken", found=f"{folder} cannot be written", cure=cure)
        elif free < _LOW_DISK_BYTES:
            cure = f"free some space, or set paths.{name} elsewhere"
            yield Check(what=what, status="warn", found=found, cure=cure)
        else:
            yield Check(what=what, status="ok", found=found)


def _readers(settings: Settings) -> Iterator[Check]:
    from wetread.errors import BundleRefused
    from wetread.models.bundle import ZOO, load_any_card

    folders = [card.parent for shelf in (settings.paths.readers, ZOO) for card in sorted(shelf.glob("*/card.json"))]
    for folder in folders:
        what = f"reader {folder.name}"
        try:
            card = load_any_card(folder)
        except BundleRefused as error:
            yield Check(what=what, status="broken", found=str(error), cure=f"import it again, or remove {folder}")
            continue
        damaged = _damaged_weights(folder, card.weights)
        if damaged:
            found = f"{', '.join(damaged)} is not what the card says"
            yield Check(what=what, status="broken", found=found, cure=f"import it again, or remove {folder}")
        else:
            kind = "segmentation" if card.kind == "segmenter" else card.task
            yield Check(what=what, status="ok", found=f"{card.version}, {card.architecture}, {kind}")
    if not folders:
        cure = "train one (wetread train --help) or import one (wetread models import --help)"
        yield Check(what="readers", status="warn", found="none", cure=cure)


def _damaged_weights(folder: Path, weights: dict[str, str]) -> list[str]:
    from wetread.provenance import file_sha256

    files = {name: folder / name for name in weights}
    return [name for name, file in files.items() if not file.is_file() or file_sha256(file) != weights[name]]
