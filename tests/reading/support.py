"""A small reader bundle with random weights, phantom films, and files that are no radiographs."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from tests.models.support import card_for
from wetread.datasets.phantoms import Phantom, render, sample_spec, write_dicom, write_png
from wetread.models.backbones import build_network
from wetread.models.bundle import save_reader
from wetread.models.card import GateSpec, HeadSpec, InputSpec, ReaderCard
from wetread.models.inputs import normalise, to_batch
from wetread.models.outlier import fit_statistics
from wetread.types import Estimate, Image, ImageFacts, OperatingPoint

SPEC = InputSpec(height=64, width=64)


def facts_of(name: str = "film.png", rows: int = 256, columns: int = 256, **changes: Any) -> ImageFacts:
    base = ImageFacts(name=name, format="PNG", sha256="0" * 64, rows=rows, columns=columns, bits=8)
    return base.model_copy(update=changes)


def image_from(pixels: NDArray[Any], **changes: Any) -> Image:
    rows, columns = pixels.shape
    return Image(pixels.astype(np.float32), facts_of(rows=rows, columns=columns, **changes))


@functools.cache
def phantom(seed: int) -> Phantom:
    return render(sample_spec(np.random.default_rng(seed), size_px=256))


def point(name: str, label: str, threshold: float) -> OperatingPoint:
    rate = Estimate(value=0.9, low=0.8, high=0.95, n=50, method="Wilson")
    rule = f"{name} on validation"
    return OperatingPoint(name=name, label=label, threshold=threshold, rule=rule, sensitivity=rate, specificity=rate)


def make_bundle(
    folder: Path,
    labels: Sequence[str] = ("pneumonia",),
    points: Sequence[OperatingPoint] | None = None,
    limit: float = 10.0,
    architecture: str = "cnn",
    **changes: Any,
) -> ReaderCard:
    """Write a reader with random weights whose gate was fitted to phantoms."""
    torch.manual_seed(1)
    softmax = len(labels) > 1 and changes.get("task") != "multilabel"
    network = build_network(architecture, HeadSpec(), SPEC, len(labels), softmax=softmax).eval()
    with torch.inference_mode():
        batch = to_batch([phantom(seed).image for seed in range(32)], SPEC)
        embeddings = network.embed(network.features(normalise(batch, SPEC))).numpy()
    statistics = fit_statistics(embeddings, components=4)
    chosen = points if points is not None else [point("youden", label, 0.5) for label in labels]
    gate = GateSpec(
        limit=limit, quantile=0.99, n=32, components=4, modalities=("CR", "DX", "DR"), body_parts=("CHEST",)
    )
    fields = {"architecture": architecture, "input": SPEC, "operating_points": tuple(chosen), "gate": gate, **changes}
    card = card_for(labels, **fields).model_copy(update={"name": folder.name})
    return save_reader(folder, card, [network], statistics)


def shared_bundle() -> Path:
    """The binary reader that most tests use, made once in each process."""
    return _shared_bundle()


@functools.cache
def _shared_bundle() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wetread-reader-")) / "small"
    make_bundle(folder, points=[point("youden", "pneumonia", 0.5), point("sensitivity=0.95", "pneumonia", 0.0)])
    return folder


def write_films(folder: Path, count: int) -> list[Path]:
    """Write phantoms 100, 101, ... in turn as DICOM and 8-bit PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(count):
        if i % 2 == 0:
            files.append(write_dicom(phantom(100 + i), folder / f"film{i}.dcm"))
        else:
            files.append(write_png(phantom(100 + i), folder / f"film{i}.png"))
    return files


def mixed_folder(folder: Path) -> Path:
    """Seven films and three files that cannot be read."""
    films = write_films(folder, 7)
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "letter.dcm").write_text("Dear colleague, please find enclosed ...\n", encoding="utf-8")
    (folder / "half.dcm").write_bytes(films[0].read_bytes()[:20_000])
    return folder


def text_page(
    width: int = 620, height: int = 877, size: int = 12, *, shade: int = 250, ink: int = 20
) -> NDArray[np.float32]:
    """A rendered page of words, float32 (height, width) in [0, 1]."""
    rng = np.random.default_rng(3)
    page = PilImage.new("L", (width, height), shade)
    draw = ImageDraw.Draw(page)
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    for top in range(height // 12, height - height // 12, int(size * 1.4)):
        words = " ".join("".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(30))
        while draw.textlength(words, font=font) > width * 0.84:
            words = words[:-2]
        draw.text((width * 0.08, top), words, font=font, fill=ink)
    return np.asarray(page, dtype=np.float32) / np.float32(255)


def colour_photograph(path: Path) -> Path:
    """A picture in full colour: sky, meadow and a red house."""
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[:120] = (90, 150, 230)
    pixels[120:] = (60, 160, 50)
    pixels[90:170, 120:200] = (200, 40, 30)
    noise = np.random.default_rng(0).integers(-12, 12, pixels.shape)
    PilImage.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def grey_png(path: Path, pixels: NDArray[np.float32]) -> Path:
    PilImage.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(path)
    return path
