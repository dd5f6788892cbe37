"""The rendered film and its truth: determinism, signal inside the mask, proportions, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.datasets.phantoms import (
    FINDING_KINDS,
    SOURCES,
    Finding,
    FindingKind,
    PhantomSpec,
    Pose,
    Side,
    render,
    sample_finding,
    sample_spec,
)
from wetread.errors import UsageError

SMALL_PX = 192
HEART_LIMIT = 0.5
"""A cardiothoracic ratio above one half on a PA film is the textbook sign of a large heart."""

Mask = NDArray[np.bool_]


def dilated(mask: Mask, pixels: int) -> Mask:
    """Reference: grow a mask by shifting it one pixel at a time in four directions."""
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask


def specs(n: int, seed: int, kind: FindingKind | None = None, size_px: int = SMALL_PX) -> list[PhantomSpec]:
    rng = np.random.default_rng(seed)
    return [
        sample_spec(rng, findings=() if kind is None else (sample_finding(rng, kind),), size_px=size_px)
        for _ in range(n)
    ]


class TestRender:
    def test_same_spec_gives_same_bits(self) -> None:
        spec = specs(1, 3, "consolidation")[0]
        first, second = render(spec), render(spec)
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.findings[0].mask, second.findings[0].mask)
        assert first.findings[0].box == second.findings[0].box

    def test_other_seed_and_other_exposure_differ(self) -> None:
        spec = PhantomSpec(seed=1, size_px=SMALL_PX)
        first = render(spec).image
        other_patient = np.abs(first - render(replace(spec, seed=2)).image)
        other_film = np.abs(first - render(replace(spec, exposure=1)).image)
        assert other_patient.mean() > 0.02
        assert 0 < other_film.mean() < other_patient.mean()

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("size_px", [64, 226, 512])
    def test_image_is_a_full_range_film(self, source: str, size_px: int) -> None:
        phantom = render(PhantomSpec(seed=7, source=source, size_px=size_px))
        assert phantom.image.shape == (size_px, size_px)
        assert phantom.image.dtype == np.float32
        assert float(phantom.image.min()) >= 0.0
        assert float(phantom.image.max()) <= 1.0
        assert float(np.ptp(phantom.image)) > 0.8

    @pytest.mark.parametrize("source", SOURCES)
    def test_lungs_are_darker_than_heart_and_lie_apart(self, source: str) -> None:
        rng = np.random.default_rng(4)
        phantom = render(sample_spec(rng, source=source, size_px=SMALL_PX))
        lungs = phantom.lung_left | phantom.lung_right
        assert phantom.image[lungs].mean() + 0.2 < phantom.image[phantom.heart].mean()
        assert not (phantom.lung_left & phantom.lung_right).any()
        # the patient's right is on the image's left, and the heart's larger part on the patient's left
        columns = np.arange(SMALL_PX)[None, :]
        centre = {
            name: float((columns * mask).sum() / mask.sum())
            for name, mask in (("right", phantom.lung_right), ("left", phantom.lung_left), ("heart", phantom.heart))
        }
        assert centre["right"] < centre["heart"] < centre["left"]

    def test_lungs_take_a_plausible_share_of_the_film(self) -> None:
        shares = [float((p.lung_left | p.lung_right).mean()) for p in map(render, specs(12, 8, size_px=96))]
        assert min(shares) > 0.12
        assert max(shares) < 0.40

    def test_children_are_smaller_and_rounder(self) -> None:
        child, adult = (render(PhantomSpec(seed=5, age_years=a, size_px=SMALL_PX)) for a in (2, 40))
        assert child.pixel_mm < 0.65 * adult.pixel_mm
        tall = [
            np.ptp(np.flatnonzero(p.lung_right.any(axis=1)))
            / np.ptp(np.flatnonzero((p.lung_left | p.lung_right).any(axis=0)))
            for p in (child, adult)
        ]
        assert tall[0] < tall[1]

    def test_deep_breath_lowers_the_diaphragm(self) -> None:
        shallow, deep = (
            render(PhantomSpec(seed=5, size_px=SMALL_PX, pose=Pose(inspiration=i))).lung_right for i in (0.2, 1.0)
        )
        assert np.flatnonzero(deep.any(axis=1))[-1] > np.flatnonzero(shallow.any(axis=1))[-1]

    def test_more_photons_make_less_noise(self) -> None:
        quiet = render(PhantomSpec(seed=5, size_px=SMALL_PX, exposure_factor=20.0)).image

        def grain(factor: float) -> float:
            noisy = render(PhantomSpec(seed=5, size_px=SMALL_PX, exposure_factor=factor)).image
            return float(np.abs(noisy - quiet).mean())

        assert grain(0.1) > 2 * grain(1.0)


class TestFindings:
    @pytest.mark.parametrize("kind", FINDING_KINDS)
    def test_difference_lies_inside_the_mask(self, kind: FindingKind) -> None:
        for spec in specs(6, 11, kind):
            sick, well = render(spec), render(replace(spec, findings=()))
            change = np.abs(sick.image.astype(np.float64) - well.image)
            near = dilated(sick.findings[0].mask, 3)
            assert change[near].sum() >= 0.8 * change.sum(), spec

    @pytest.mark.parametrize("kind", ["consolidation", "nodule", "effusion"])
    def test_it_is_dense_and_on_its_side(self, kind: FindingKind) -> None:
        for spec in specs(6, 12, kind):
            sick, well = render(spec), render(replace(spec, findings=()))
            truth = sick.findings[0]
            assert (sick.image - well.image)[truth.mask].mean() > 0.02, spec
            own = sick.lung_left if truth.finding.side == "left" else sick.lung_right
            other = sick.lung_right if truth.finding.side == "left" else sick.lung_left
            assert (truth.mask & own).any()
            assert not (truth.mask & other).any()

    @pytest.mark.parametrize("kind", ["consolidation", "nodule"])
    def test_finding_of_the_lung_is_mostly_in_the_lung_field(self, kind: FindingKind) -> None:
        finding = Finding(kind, 0.5, "right", (0.55, 0.5))
        sick = render(PhantomSpec(seed=21, size_px=SMALL_PX, findings=(finding,)))
        mask = sick.findings[0].mask
        assert (mask & sick.lung_right).sum() > 0.85 * mask.sum()

    @pytest.mark.parametrize("kind", FINDING_KINDS)
    def test_box_is_the_smallest_around_the_mask(self, kind: FindingKind) -> None:
        truth = render(specs(1, 13, kind)[0]).findings[0]
        rows, columns = np.nonzero(truth.mask)
        box = truth.box
        assert (box.x, box.y) == (columns.min(), rows.min())
        assert (box.width, box.height) == (columns.max() - columns.min() + 1, rows.max() - rows.min() + 1)

    @pytest.mark.parametrize("kind", ["consolidation", "nodule", "effusion"])
    def test_severity_grows_the_shadow(self, kind: FindingKind) -> None:
        def shadow(severity: float) -> float:
            spec = PhantomSpec(seed=9, size_px=SMALL_PX, findings=(Finding(kind, severity, "left"),))
            return float((render(spec).image - render(replace(spec, findings=())).image).sum())

        mild, gross = shadow(0.3), shadow(0.9)
        assert 0 < 1.5 * mild < gross

    def test_normal_hearts_are_below_half_and_large_ones_above(self) -> None:
        for spec in specs(40, 14, size_px=128):
            assert render(spec).cardiothoracic_ratio < HEART_LIMIT, spec
        for severity in (0.0, 0.3, 1.0):
            for spec in specs(8, 15, size_px=128):
                large = replace(spec, findings=(Finding("cardiomegaly", severity),))
                assert render(large).cardiothoracic_ratio > HEART_LIMIT, large

    def test_cardiothoracic_ratio_by_hand(self) -> None:
        phantom = render(PhantomSpec(seed=0, size_px=64))
        left, right, heart = (np.zeros((64, 64), bool) for _ in range(3))
        right[10:20, 5:15], left[10:20, 30:45], heart[12:18, 12:28] = True, True, True
        by_hand = replace(phantom, lung_left=left, lung_right=right, heart=heart)
        assert by_hand.cardiothoracic_ratio == 16 / 40

    def test_two_findings_have_two_truths(self) -> None:
        findings = (Finding("nodule", 0.8, "left", (0.5, 0.3)), Finding("effusion", 0.5, "right"))
        truths = render(PhantomSpec(seed=3, size_px=SMALL_PX, findings=findings)).findings
        assert [t.finding.kind for t in truths] == ["nodule", "effusion"]
        assert not (truths[0].mask & truths[1].mask).any()


class TestExtremes:
    @pytest.mark.parametrize("kind", FINDING_KINDS)
    @pytest.mark.parametrize("severity", [0.0, 1.0])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_every_corner_still_gives_a_film_and_a_mask(self, kind: FindingKind, severity: float, sign: int) -> None:
        lung: Side = "left" if sign > 0 else "right"
        side = None if kind == "cardiomegaly" else lung
        corner = (0.0, 1.0) if sign > 0 else (1.0, 0.0)
        spec = PhantomSpec(
            seed=30 + sign,
            age_years=0.5 if sign > 0 else 100.0,
            findings=(Finding(kind, severity, side, corner),),
            size_px=64,
            pose=Pose(20.0 * sign, -20.0 * sign, 15.0 * sign, 0.5 + 0.5 * sign, (0.1 * sign, -0.1 * sign)),
            kvp=100.0 + 50 * sign,
            exposure_factor=0.05 if sign > 0 else 20.0,
        )
        phantom = render(spec)
        assert np.isfinite(phantom.image).all()
        assert phantom.findings[0].mask.any()
        assert phantom.findings[0].box.width >= 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"size_px": 32}, "expected size_px from 64 to 4096, got 32"),
            ({"size_px": 255}, "expected an even size_px, got 255; add one pixel"),
            ({"age_years": float("nan")}, "expected age_years from 0.5 to 100, got nan"),
            ({"source": "elsewhere"}, "expected a source among northgate, .*, got 'elsewhere'"),
            ({"sex": "x"}, "expected sex among F, M, got 'x'"),
            ({"view": "LATERAL"}, "expected view among PA, AP, got 'LATERAL'"),
            ({"seed": -1}, "expected a seed and an exposure number of at least 0, got -1"),
            ({"kvp": 20.0}, "expected kvp from 50 to 150, got 20"),
        ],
    )
    def test_spec(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            PhantomSpec(**{"seed": 1, **change})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("fracture", 0.5, "left"), "expected a finding among consolidation, .*, got 'fracture'"),
            (("nodule", 1.5, "left"), "expected a severity from 0 to 1, got 1.5"),
            (("nodule", 0.5, None), "expected a side for a finding of the lung"),
            (("cardiomegaly", 0.5, "left"), "none for cardiomegaly"),
            (("nodule", 0.5, "left", (0.5, 2.0)), "expected a position from 0 to 1, got 2.0"),
        ],
    )
    def test_finding(self, arguments: tuple[Any, ...], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Finding(*arguments)

    def test_pose(self) -> None:
        with pytest.raises(UsageError, match="expected rotation_deg from -20 to 20, got 45"):
            Pose(rotation_deg=45)
