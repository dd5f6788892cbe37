"""T3: a planted marker fails, a true sign does not, an outline warns; on real radiographs it fails Kermany's set."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.audit.films import films, half, material
from wetread.audit.background import background_line, judged, within_strata
from wetread.audit.material import gather_material, material_of_arrays
from wetread.audit.probes import Told
from wetread.audit.thresholds import Thresholds
from wetread.audit.views import hidden_area
from wetread.evaluation.auroc import auroc_estimate

LIMITS = Thresholds()


def test_a_marker_that_goes_with_the_label_fails_and_is_shown() -> None:
    found, positive = material(marker=0.95)
    line, pictures = background_line(found, LIMITS)
    assert line.answer == "FAIL"
    assert "can be told outside the organ" in line.sentence
    rho = line.figures[0].estimate
    assert rho.low is not None
    assert rho.low > LIMITS.t3_share_fail
    assert line.n == len(positive)
    assert {example.picture for example in line.examples} == set(pictures)
    difference = np.asarray(Image.open(BytesIO(pictures["T3-difference.png"])).convert("RGB")).astype(int)
    corner = difference[14:28, 16:26].reshape(-1, 3)  # where the marker lies, at 256 pixels
    assert (corner[:, 0] - corner[:, 2]).max() > 100  # orange: lighter with the label
    assert (difference[128, 128] == 120).all()  # the organ is hidden


def test_a_true_sign_inside_the_organ_alone_does_not_fail() -> None:
    found, _ = material()
    answer = judged(found, hidden_area(found), 0, LIMITS)
    assert answer.answer in ("PASS", "WARN")
    assert answer.full is not None
    assert answer.full.above_chance
    assert answer.outside is not None
    assert not answer.outside.above_chance


def test_what_only_the_outline_tells_warns_and_says_so() -> None:
    """Large organs are positive, and the grey value outside follows the size: hiding the organ cannot hide that."""
    n = 150
    rng = np.random.default_rng(3)
    images, masks = [], []
    size = rng.uniform(0.18, 0.30, n)
    for radius in size:
        drawn = films(1, int(rng.integers(1000)), float(radius))
        image, mask = drawn[0][0], drawn[1][0]
        images.append(np.clip(image + np.float32(2 * (radius - 0.24)), 0, 1).astype(np.float32))
        masks.append(mask)
    areas = np.array([mask.mean() for mask in masks])
    targets = (areas > np.median(areas))[:, None].astype(np.float32)
    line, _ = background_line(material_of_arrays(images, targets, masks=masks), LIMITS)
    assert line.answer == "WARN"
    assert "not beyond what the shape of the organ tells" in line.sentence
    assert any("outline alone tells the label too" in note for note in line.notes)


def test_within_strata_on_paper() -> None:
    """Two strata of which one is in perfect order and one in reverse: half of the pairs are in order."""
    by = np.repeat(np.arange(5.0), 4)  # fifths of four images each
    targets = np.tile([True, True, False, False], 5)
    order = np.tile([2.0, 2.0, 1.0, 1.0], 5)
    patients = np.array([str(i) for i in range(20)])

    def value(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float | None:
        return within_strata(Told(scores, targets, patients, auroc_estimate(scores, targets)), by).value

    assert value(order) == 1.0
    assert value(np.where(by < 3, order, -order)) == pytest.approx(0.6)
    assert value(by) == 0.5  # knows the stratum and nothing else


def test_without_an_organ_the_frame_alone_is_judged_and_nothing_passes() -> None:
    found, _ = material(masks=False)
    line, _ = background_line(found, LIMITS)
    assert line.answer in ("NOT ASSESSABLE", "WARN")
    assert any("only the frame was judged" in note for note in line.notes)
    told, positive = material(masks=False)
    grey = told.grey.copy()
    grey[positive, :6] = 0  # a dark upper edge goes with the label
    line, _ = background_line(replace(told, grey=grey), LIMITS)
    assert line.answer == "FAIL"
    assert "in the frame of the image" in line.sentence


def test_a_label_that_nothing_tells_and_one_that_is_rare_are_not_assessable() -> None:
    found, _ = material(sign=False)
    line, _ = background_line(found, LIMITS)
    assert line.answer == "NOT ASSESSABLE"
    assert "neither the whole image" in line.sentence
    few = found.take(np.arange(50))
    line, pictures = background_line(few, LIMITS)
    assert (line.answer, pictures) == ("NOT ASSESSABLE", {})
    assert "fewer than 30 of one" in line.sentence
    unlabelled = replace(found, labels=(), targets=np.empty((len(found), 0), np.float32))
    assert "no labels" in background_line(unlabelled, LIMITS)[0].sentence


def test_files_whose_format_goes_with_the_label_do_not_pass() -> None:
    found, positive = material(n=200)
    facts = found.facts.copy()
    facts[:, 1] += 100 * positive
    answer = judged(replace(found, facts=facts), hidden_area(found), 0, Thresholds(t3_share_pass=0.9))
    assert answer.answer == "WARN"
    assert "size, depth or format of the files" in answer.why


def test_the_worst_label_decides_and_the_others_are_named() -> None:
    found, positive = material(marker=0.95)
    other = half(len(found), seed=9).astype(np.float32)
    both = replace(found, labels=("nothing", "marked"), targets=np.stack([other, positive.astype(np.float32)], axis=1))
    line, _ = background_line(both, LIMITS)
    assert line.answer == "FAIL"
    assert "'marked'" in line.sentence
    assert any("2 labels were asked" in note and "nothing: " in note and "97.5 %" in note for note in line.notes)


def test_unknown_labels_take_no_part() -> None:
    found, _ = material(marker=0.95)
    targets = found.targets.copy()
    targets[:20] = np.nan
    assert background_line(replace(found, targets=targets), LIMITS)[0].n == 100


def test_the_set_of_kermany_fails(shared_data: Path) -> None:
    """The label can be told without the lungs: 130 films of 130 patients are enough to see it."""
    from wetread.datasets.importers.registry import import_dataset
    from wetread.models.bundle import load_finder

    folder = shared_data / "kermany-cxr"
    if not folder.is_dir():
        pytest.skip("no Kermany radiographs in the shared data")
    found = gather_material(import_dataset(folder).manifest, load_finder("lungs", "lungs"), limit=130)
    line, _ = background_line(found, LIMITS)
    assert line.answer == "FAIL"
    frame = next(figure.estimate for figure in line.figures if "frame alone" in figure.what)
    assert frame.low is not None
    assert frame.low > 0.7
