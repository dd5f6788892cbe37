"""The pages of a segmenter in a real browser, as the command line writes them on phantoms; pictures of the docs too.

``WETREAD_UPDATE_SCREENSHOTS=1`` trains long enough for curves worth looking at (minutes) and writes
``docs/images/report-{organs,segment-training,segment-evaluation}.png``; else the smallest run is drawn.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reporting.browser import DARK, LIGHT, NEEDS_BROWSER, UPDATING, keep, require_drawn, shoot
from wetread.cli.main import run
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantoms import DatasetPlan, make_dataset
from wetread.imaging import load_image, preview8

pytestmark = NEEDS_BROWSER

FILMS, SIDE_PX, INPUT_PX, EPOCHS = (90, 256, 128, 14) if UPDATING else (24, 64, 32, 1)
UNMARKED = 3
"""Films of the training and the test split whose masks are taken away."""
SHOTS = {
    "organs": ("organs/index.html", (1200, 1600), LIGHT),
    "segment-training": ("runs/train/organs/report.html", (1200, 1400), DARK),
    "segment-evaluation": ("evaluation/report.html", (1200, 1270), LIGHT),
}
"""Page, size of the window, wish for light or dark."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of a training, an evaluation and films segmented by the shipped segmenter."""
    found = tmp_path_factory.mktemp("pages")
    with contextlib.chdir(found):  # pages name the folders as they were given
        data = _films(
            make_dataset(found / "phantoms", _plan(FILMS, SIDE_PX, {"train": 0.5, "val": 0.25, "test": 0.25}))
        )
        data.save(found / "phantoms")
        size = ("--image-size", INPUT_PX, "--epochs", EPOCHS, "--batch-size", 8, "--threads", 1, "--no-tensorboard")
        organs = ("--organs", "lungs", "--organs", "heart", "--name", "organs")
        _wetread("train", "phantoms", "--task", "segment", *organs, *size, "--population", "phantoms")
        _wetread("evaluate", "runs/train/organs", "--data", "phantoms", "--out", "evaluation")
        _ward()
        _wetread("segment", "ward", "--out", "organs", code=1)  # one file of the ward is no image
    return found


def _plan(count: int, side_px: int, fractions: dict[str, float]) -> DatasetPlan:
    return DatasetPlan(count, seed=2, format="dicom", size_px=side_px, fractions=fractions)


def _films(manifest: Manifest) -> Manifest:
    table = manifest.table.copy()
    masks = [column for column in table.columns if column.startswith("mask")]
    for split in ("train", "test"):
        table.loc[table.index[table["split"] == split][:UNMARKED], masks] = None
    return manifest.with_table(table)


def _ward() -> None:
    """A film, the half of another one, and a file that is no image."""
    ward = Path("ward")
    manifest = make_dataset(Path("films"), _plan(2, 384, {}))
    ward.mkdir()
    first, second = (manifest.path_of(str(path)) for path in manifest.table["path"])
    first.rename(ward / "film1.dcm")
    whole = preview8(load_image(second))
    Image.fromarray(whole[:, : np.size(whole, 1) // 2]).save(ward / "film2-half.png")
    (ward / "film3.dcm").write_text("not a film")


def _wetread(*arguments: object, code: int = 0) -> None:
    assert run([str(argument) for argument in arguments]) == code


@pytest.mark.parametrize("name", SHOTS)
def test_page_is_drawn_and_says_nothing_on_the_console(name: str, folder: Path, tmp_path: Path) -> None:
    page, size, flags = SHOTS[name]
    file, said = shoot(tmp_path, (folder / page).read_text(encoding="utf-8"), size, *flags)
    assert said == []
    require_drawn(file, size, flags)
    if UPDATING:
        keep(file, name, coarse=True)
