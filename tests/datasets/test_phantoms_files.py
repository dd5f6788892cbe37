"""Phantoms as files: strict DICOM, PNG depth, masks, and whole data sets that a manifest accepts."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image as PilImage

from wetread.datasets.manifest import load_manifest
from wetread.datasets.phantoms import (
    FINDING_KINDS,
    SOURCES,
    DatasetPlan,
    Finding,
    Identity,
    Phantom,
    PhantomSpec,
    make_dataset,
    planned,
    render,
    stored_pixels,
    to_dicom,
    write_dicom,
    write_masks,
    write_png,
)
from wetread.errors import UsageError
from wetread.imaging import load_image

SMALL_PX = 96


def phantom(source: str = "northgate", **changes: Any) -> Phantom:
    finding = Finding("nodule", 0.8, "left")
    return render(PhantomSpec(seed=17, source=source, size_px=SMALL_PX, findings=(finding,), **changes))


class TestDicom:
    @pytest.mark.parametrize("source", SOURCES)
    def test_pixels_come_back_through_our_reader(self, source: str, tmp_path: Path) -> None:
        made = phantom(source)
        image = load_image(write_dicom(made, tmp_path / "film.dcm"))
        step = 1 / (2 ** SOURCES[source].bits - 1)
        assert float(np.abs(image.pixels - made.image).max()) <= 0.51 * step + 1e-6
        assert image.facts.photometric_interpretation == SOURCES[source].photometric
        assert image.facts.spacing_mm == (made.pixel_mm, made.pixel_mm)
        assert (image.facts.view, image.facts.body_part) == ("PA", "CHEST")
        assert image.facts.sex == "M"
        assert image.facts.age_years == 45

    def test_monochrome1_is_stored_inverted(self) -> None:
        made = phantom("riverside")
        stored = stored_pixels(made)
        assert stored.dtype == np.uint16
        assert int(stored.max()) <= 2**10 - 1
        dense, thin = made.image > 0.9, made.image < 0.1
        assert stored[dense].mean() < stored[thin].mean()

    def test_header_says_that_nobody_was_imaged(self, tmp_path: Path) -> None:
        data = pydicom.dcmread(write_dicom(phantom(), tmp_path / "film.dcm"))
        assert data.PatientName == "PHANTOM^0017"
        assert data.PatientID == "PHANTOM-0017"
        assert "no person" in data.ImageComments
        assert data.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert all(uid.startswith("2.25.") and uid.is_valid for uid in (data.SOPInstanceUID, data.StudyInstanceUID))

    def test_same_spec_same_file_and_other_film_other_uid(self, tmp_path: Path) -> None:
        first = write_dicom(phantom(), tmp_path / "a.dcm").read_bytes()
        assert first == write_dicom(phantom(), tmp_path / "b.dcm").read_bytes()
        one, two = to_dicom(phantom()), to_dicom(phantom(exposure=1))
        assert one.SOPInstanceUID != two.SOPInstanceUID
        assert one.StudyInstanceUID != two.StudyInstanceUID
        assert one.PatientID == two.PatientID
        same_study = to_dicom(phantom(exposure=1), Identity("0017", study=1, image=2))
        assert same_study.StudyInstanceUID == one.StudyInstanceUID
        assert same_study.SOPInstanceUID != one.SOPInstanceUID

    @pytest.mark.parametrize(("age", "text"), [(0.5, "006M"), (1.5, "018M"), (2.0, "002Y"), (88.7, "088Y")])
    def test_age_string(self, age: float, text: str) -> None:
        assert to_dicom(phantom(age_years=age)).PatientAge == text

    @pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy: apt-get install dicom3tools")
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("view", ["PA", "AP"])
    def test_dciodvfy_finds_no_error(self, source: str, view: str, tmp_path: Path) -> None:
        path = write_dicom(phantom(source, view=view, age_years=1.5), tmp_path / "film.dcm")
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False, timeout=60)
        said = done.stdout + done.stderr
        assert "CRImage" in said
        assert "Error" not in said


class TestPictures:
    @pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
    def test_png_keeps_depth_and_sense(self, bits: int, dtype: type, tmp_path: Path) -> None:
        made = phantom("riverside")
        values = np.asarray(PilImage.open(write_png(made, tmp_path / "film.png", bits=bits)))
        assert values.dtype == dtype
        assert float(np.abs(values / (2**bits - 1) - made.image).max()) <= 0.51 / (2**bits - 1)

    def test_png_of_12_bits_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="expected 8 or 16 bits for a PNG, got 12"):
            write_png(phantom(), tmp_path / "film.png", bits=12)
        assert not list(tmp_path.iterdir())

    def test_masks_come_back(self, tmp_path: Path) -> None:
        made = phantom()
        paths = write_masks(made, tmp_path / "film")
        read = {part: np.asarray(PilImage.open(path)).astype(bool) for part, path in paths.items()}
        np.testing.assert_array_equal(read["lungs"], made.lung_left | made.lung_right)
        np.testing.assert_array_equal(read["heart"], made.heart)
        np.testing.assert_array_equal(read["findings"], made.findings[0].mask)
        healthy = write_masks(replace(made, findings=()), tmp_path / "healthy")
        assert "findings" not in healthy


class TestDataset:
    def test_binary_dicom_dataset_is_a_sound_manifest(self, tmp_path: Path) -> None:
        calls: list[tuple[int, int]] = []
        plan = DatasetPlan(n=24, seed=2, size_px=64)
        made = make_dataset(tmp_path / "set", plan, lambda done, total: calls.append((done, total)))
        assert calls == [(i, 24) for i in range(1, 25)]
        manifest = load_manifest(tmp_path / "set")
        manifest.require_files()
        made.require_files()
        table = manifest.table
        assert manifest.meta.classes == ("normal", "consolidation")
        assert set(table["label"]) == {"normal", "consolidation"}
        assert set(table["split"]) == {"train", "val", "test"}
        assert int(table.groupby("patient")["split"].nunique().max()) == 1
        assert int(table["patient"].value_counts().max()) > 1
        assert table["study"].is_unique
        assert load_manifest(tmp_path / "set" / "labels.csv").meta.classes == ("normal", "consolidation")

    def test_boxes_and_masks_agree_with_labels(self, tmp_path: Path) -> None:
        plan = DatasetPlan(
            n=8, seed=5, kinds=FINDING_KINDS, task="multiclass", size_px=64, format="png16", fractions={}
        )
        manifest = make_dataset(tmp_path / "set", plan)
        assert manifest.table["split"].isna().all()
        for _, row in manifest.table.iterrows():
            boxes = json.loads(row["boxes"])
            assert [b["label"] for b in boxes] == ([] if row["label"] == "normal" else [row["label"]])
            assert isinstance(row["mask_findings"], str) == bool(boxes)
            lungs = np.asarray(PilImage.open(manifest.root / row["mask"]))
            assert lungs.shape == (row["height"], row["width"])
            if boxes:
                mask = np.asarray(PilImage.open(manifest.root / row["mask_findings"]))
                rows, columns = np.nonzero(mask)
                assert (boxes[0]["x"], boxes[0]["y"]) == (columns.min(), rows.min())

    def test_multilabel_columns(self, tmp_path: Path) -> None:
        plan = DatasetPlan(n=8, seed=3, kinds=("nodule", "effusion"), task="multilabel", size_px=64, format="png",
                           masks=False, fractions={})  # fmt: skip
        table = make_dataset(tmp_path / "set", plan).table
        assert set(table["label_nodule"]) | set(table["label_effusion"]) <= {0, 1}
        assert table["mask"].isna().all()

    def test_plan_is_deterministic_and_keeps_patients_apart(self) -> None:
        plan = DatasetPlan(n=300, seed=9)
        first, second = list(planned(plan)), list(planned(plan))
        assert first == second
        other = {who.patient for _, who in planned(replace(plan, seed=10))}
        assert not other & {who.patient for _, who in first}
        anatomy: dict[str, set[tuple[int, str, float, str]]] = {}
        for spec, who in first:
            anatomy.setdefault(who.patient, set()).add((spec.seed, spec.sex, spec.age_years, spec.source))
        assert all(len(facts) == 1 for facts in anatomy.values())
        assert len({(spec.seed, spec.exposure) for spec, _ in first}) == 300
        ill = np.mean([bool(spec.findings) for spec, _ in first])
        assert 0.35 < ill < 0.55  # half of the patients, less what healed

    def test_the_mildest_finding_of_a_first_film_is_as_asked(self) -> None:
        for mildest in (0.0, 0.6):
            plan = DatasetPlan(n=200, seed=4, mildest=mildest)
            severities = [f.severity for spec, _ in planned(plan) if spec.exposure == 0 for f in spec.findings]
            assert mildest <= min(severities) < mildest + 0.05

    def test_sources_do_not_follow_the_label(self) -> None:
        """Chi-squared of source against label stays below the 99.9 % point of 4 degrees of freedom, 18.5."""
        counts = np.zeros((2, len(SOURCES)))
        names = list(SOURCES)
        seen = set()
        for spec, who in planned(DatasetPlan(n=2000, seed=1)):
            if who.patient not in seen:
                seen.add(who.patient)
                counts[int(bool(spec.findings)), names.index(spec.source)] += 1
        expected_counts = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
        assert ((counts - expected_counts) ** 2 / expected_counts).sum() < 18.5

    def test_nothing_is_left_when_writing_fails(self, tmp_path: Path) -> None:
        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make_dataset(tmp_path / "set", DatasetPlan(n=4, size_px=64), stop)
        assert not list(tmp_path.iterdir())

    def test_a_full_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
        with pytest.raises(UsageError, match="expected a new folder"):
            make_dataset(tmp_path, DatasetPlan(n=4, size_px=64))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n": 0}, "expected 1 to 1048576 images, got 0"),
            ({"prevalence": 1.5}, "expected a prevalence from 0 to 1, got 1.5"),
            ({"mildest": -0.1}, "expected a mildest severity from 0 to 1, got -0.1"),
            ({"kinds": ()}, "expected kinds among consolidation"),
            ({"kinds": ("fracture",)}, "expected kinds among consolidation"),
            ({"sources": ("elsewhere",)}, "expected a source among northgate"),
            ({"sources": ()}, "expected sources among northgate, .*, got none"),
            ({"format": "jpeg"}, "expected format among dicom, png, png16, got 'jpeg'"),
            ({"task": "regression"}, "expected task among binary, multiclass, multilabel"),
            ({"seed": -1}, "expected a seed of at least 0, got -1"),
        ],
    )
    def test_plan_refusals(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            DatasetPlan(**{"n": 4, **change})
