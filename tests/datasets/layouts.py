"""One small example of every layout on disk, for the contract that all importers keep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from tests.datasets.pictures import class_tree, picture, write
from wetread.datasets.importers.base import ImportOptions


@dataclass(frozen=True)
class Layout:
    """How to make it, how to import it, and how many images come out."""

    build: Callable[[Path], Path]
    images: int
    options: ImportOptions = field(default_factory=ImportOptions)


def folder(root: Path) -> Path:
    return class_tree(root)


def coco(root: Path) -> Path:
    """Two listed images, one of them with a square outline, and one that is not listed."""
    names = ("a.png", "b.png", "loose.png")
    for i, name in enumerate(names):
        write(root / "images" / name, i)
    images = [{"id": i, "file_name": name, "height": 96, "width": 96} for i, name in enumerate(names[:2])]
    square = {"id": 1, "image_id": 0, "category_id": 7, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
    whole = {"images": images, "annotations": [square], "categories": [{"id": 7, "name": "heart"}]}
    (root / "annotations.json").write_text(json.dumps(whole))
    return root


def files(root: Path) -> Path:
    for i in range(3):
        write(root / "deep" / f"{i}.png", i)
    return root


def kermany(root: Path) -> Path:
    for i, name in enumerate(
        (
            "train/PNEUMONIA/person1_bacteria_1.jpeg",
            "train/PNEUMONIA/person1_virus_2.jpeg",
            "train/PNEUMONIA/person3_virus_15_1.jpeg",
            "train/NORMAL/IM-0115-0001.jpeg",
            "train/NORMAL/IM-0115-0001-0002.jpeg",
            "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
            "test/PNEUMONIA/person1_bacteria_7.jpeg",
            "test/NORMAL/IM-0001-0001.jpeg",
        )
    ):
        write(root / name, i)
    return root


def mura(root: Path) -> Path:
    studies = (
        "train/XR_ELBOW/patient00011/study1_negative",
        "train/XR_ELBOW/patient00012/study1_positive",
        "train/XR_WRIST/patient00012/study1_negative",
        "valid/XR_ELBOW/patient11186/study1_positive",
    )
    release = root / "MURA-v1.1"
    for split in ("train", "valid"):
        ours = [s for s in studies if s.startswith(split)]
        paths = [f"MURA-v1.1/{s}/image{i}.png" for s in ours for i in (1, 2)]
        for i, path in enumerate(paths):
            write(root / path, i + len(split))
        labels = [f"MURA-v1.1/{s}/,{int(s.endswith('positive'))}" for s in ours]
        (release / f"{split}_image_paths.csv").write_text("\n".join(paths) + "\n")
        (release / f"{split}_labeled_studies.csv").write_text("\n".join(labels) + "\n")
    (release / "train" / "XR_ELBOW" / "patient00011" / "study1_negative" / "._image1.png").write_text("mac")
    return root


def covid_cxr(root: Path) -> Path:
    rows = [
        ("2", 0, "M", 65, "COVID-19", "PA", "X-ray", "a.jpg", "lung_masks/a.png"),
        ("2", 3, "M", 65, "COVID-19, ARDS", "AP Supine", "X-ray", "b.jpg", ""),
        ("7", "", "F", "", "todo", "?", "X-ray", "c.jpg", ""),
        ("8", 0, "", 40, "Pneumonia/Viral/Influenza", "PA", "X-ray", "d.jpg", "lung_masks/absent.png"),
        ("9", 0, "F", 50, "No Finding", "PA", "X-ray", "e.jpg", ""),
        ("9", 1, "F", 50, "COVID-19", "Axial", "CT", "f.jpg", ""),
        ("10", 1, "F", 50, "COVID-19", "PA", "X-ray", "not-on-disk.jpg", ""),
    ]
    columns = ["patientid", "offset", "sex", "age", "finding", "view", "modality", "filename", "lung_mask"]
    root.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows, columns=columns)
    frame.assign(
        location="Hanoi, Vietnam",
        license="CC BY",
        clinical_notes="free text",
        lung_boxes_xywh_rel='[["Left Lung", 0.1, 0.2, 0.3, 0.4]]',
    ).to_csv(root / "metadata.csv", index=False)
    for i, name in enumerate("abcdef"):
        write(root / "images" / f"{name}.jpg", i)
    write(root / "lung_masks" / "a.png", 50)
    return root


def table(root: Path) -> Path:
    frame = pd.DataFrame(
        {
            "Image Index": [f"{i}.png" for i in range(4)],
            "Finding Labels": ["No Finding", "Mass|Edema", "Edema", "No Finding"],
            "Patient ID": ["001", "001", "2", "3"],
            "Patient Age": ["058Y", "58", "", "18M"],
            "Patient Gender": ["M", "M", "F", "female"],
            "View Position": ["PA", "AP", "PA", "PA"],
            "Follow-up #": [0, 1, 0, 0],
        }
    )
    root.mkdir(parents=True, exist_ok=True)
    frame.to_csv(root / "entries.csv", index=False)
    for i in range(4):
        write(root / f"images_00{i % 2}" / "images" / f"{i}.png", i)
    return root / "entries.csv"


def write_dicom(path: Path, seed: int, patient: str, study: str, **elements: object) -> Path:
    """A CR image of 32 x 32 pixels; UIDs are short and fixed."""
    pixels = picture(seed, 32).astype(np.uint16) * 16
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.9.{seed}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{study}", f"1.2.{study}.1"
    dataset.PatientID, dataset.Modality, dataset.Manufacturer = patient, "CR", "ACME"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 32, 32, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def dicom(root: Path) -> Path:
    write_dicom(root / "A" / "IM1", 1, "pat-a", "5", PatientAge="061Y", PatientSex="F", ViewPosition="PA")
    write_dicom(root / "A" / "IM2", 2, "pat-a", "5", ViewPosition="LL")
    write_dicom(root / "B" / "IM3.dcm", 3, "pat-b", "6", BodyPartExamined="CHEST", Laterality="L")
    (root / "readme.txt").write_text("not DICOM")
    return root


LAYOUTS = {
    "folder": Layout(folder, 12),
    "files": Layout(files, 3),
    "kermany": Layout(kermany, 8),
    "mura": Layout(mura, 8),
    "covid-cxr": Layout(covid_cxr, 5),
    "coco": Layout(coco, 3),
    "table": Layout(table, 4),
    "dicom": Layout(dicom, 3),
}
