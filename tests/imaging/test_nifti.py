"""NIfTI label maps: values, affine, units and codes as other readers see them, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from wetread.errors import InputRefused, UsageError
from wetread.imaging.nifti import write_mask_nifti


def corner(rows: int = 20, columns: int = 30) -> NDArray[np.bool_]:
    mask = np.zeros((rows, columns), np.bool_)
    mask[2:5, 7:20] = True
    return mask


def read(path: Path) -> Any:
    return nibabel.load(path)


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
def test_mask_comes_back_with_columns_first(name: str, tmp_path: Path) -> None:
    path = write_mask_nifti(corner(), (0.2, 0.1), tmp_path / name)
    image = read(path)
    assert image.shape == (30, 20)
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj).T, corner())
    assert list(tmp_path.iterdir()) == [path]


def test_world_is_ras_and_columns_and_rows_are_the_axes_of_lps(tmp_path: Path) -> None:
    image = read(write_mask_nifti(corner(), (0.2, 0.1), tmp_path / "mask.nii"))
    assert np.allclose(image.affine, np.diag([-0.1, -0.2, 1, 1]))
    for transform, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert np.allclose(transform, image.affine)
        assert code == 2  # aligned to another file, not the scanner's
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.allclose(image.header.get_zooms(), (0.1, 0.2))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_intent()[0] == "label"


def test_unknown_spacing_is_never_called_mm(tmp_path: Path) -> None:
    image = read(write_mask_nifti(corner(), None, tmp_path / "mask.nii"))
    assert np.allclose(image.header.get_zooms(), (1, 1))
    assert image.header.get_xyzt_units()[0] == "unknown"


@pytest.mark.parametrize(("top", "kind"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_labels_keep_their_numbers(top: int, kind: type, tmp_path: Path) -> None:
    labels = corner().astype(np.int64) * top
    image = read(write_mask_nifti(labels, None, tmp_path / "mask.nii"))
    assert image.get_data_dtype() == kind
    assert np.array_equal(np.asarray(image.dataobj).T, labels)


def test_same_mask_same_bytes(tmp_path: Path) -> None:
    first, second = (write_mask_nifti(corner(), (0.2, 0.2), tmp_path / f"{n}.nii.gz") for n in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_empty_mask_is_written(tmp_path: Path) -> None:
    image = read(write_mask_nifti(np.zeros((20, 30), np.bool_), None, tmp_path / "mask.nii"))
    assert not np.asarray(image.dataobj).any()


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 20, 30), np.bool_), np.zeros((0, 30), np.bool_), np.zeros((1, 32768), bool)]
)
def test_shape_is_refused(mask: Any, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"a mask \(rows, columns\) of 1-32767 pixels a side, got the shape \("):
        write_mask_nifti(mask, None, tmp_path / "mask.nii")


def test_values_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    grey: Any = np.zeros((20, 30), np.float32)
    with pytest.raises(InputRefused, match=r"bool or integers, got float32; set a threshold"):
        write_mask_nifti(grey, None, tmp_path / "mask.nii")
    for value in (-1, 65536):
        with pytest.raises(InputRefused, match=r"labels of 0-65535, got (-1 to 0|0 to 65536)"):
            write_mask_nifti(corner().astype(np.int32) * value, None, tmp_path / "mask.nii")


@pytest.mark.parametrize("spacing", [(0.0, 0.1), (0.1, -1.0), (float("nan"), 0.1), (0.1, float("inf"))])
def test_spacing_is_refused(spacing: tuple[float, float], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a positive \(row, column\) spacing in mm, got \(.*pass None"):
        write_mask_nifti(corner(), spacing, tmp_path / "mask.nii")


@pytest.mark.parametrize("name", ["mask.png", "mask", "mask.gz"])
def test_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a file name with \.nii or \.nii\.gz, got mask"):
        write_mask_nifti(corner(), None, tmp_path / name)
