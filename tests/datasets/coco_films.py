"""Phantom films with their organs as COCO instances, encoded by pycocotools itself."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as pycoco

from tests.datasets.mask_support import Mask
from wetread.datasets.phantoms import Phantom, render, sample_spec

__all__ = ["CATEGORIES", "SIDE_PX", "CocoFilms", "film", "outline"]

SIDE_PX = 64
CATEGORIES = {"Heart": 3, "left lung": 5, "nodule": 9}


@functools.cache
def film(number: int) -> Phantom:
    return render(sample_spec(np.random.default_rng(number), size_px=SIDE_PX))


def outline(mask: Mask, *, compressed: bool = True) -> dict[str, Any]:
    """Run lengths as pycocotools writes them, or as numbers."""
    found = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": list(mask.shape), "counts": found["counts"].decode()}
    flat = np.r_[False, mask.T.reshape(-1), False]
    edges = np.r_[0, np.flatnonzero(flat[1:] != flat[:-1]), mask.size]
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


@dataclass
class CocoFilms:
    """Films below ``root/images`` and what a COCO file says of them; ``write`` puts both on disk."""

    root: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    licenses: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, number: int, *, listed: bool = True, **entry: Any) -> Phantom:
        """Write one film; ``entry`` are further keys of its entry."""
        phantom = film(number)
        file = self.root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(phantom.image * 255).astype(np.uint8)).save(file)
        if listed:
            size = {"height": SIDE_PX, "width": SIDE_PX}
            self.images.append({"id": 10 + len(self.images), "file_name": name, **size, **entry})
        return phantom

    def annotate(self, category: str, segmentation: Any = None, **changes: Any) -> None:
        """Annotate the film that was added last."""
        one = {"id": len(self.annotations), "image_id": self.images[-1]["id"], "category_id": CATEGORIES[category]}
        if segmentation is not None:
            one["segmentation"] = segmentation
        self.annotations.append(one | changes)

    def write(self, name: str = "annotations.json", **changes: Any) -> Path:
        categories = [{"id": number, "name": category} for category, number in CATEGORIES.items()]
        whole = {"images": self.images, "categories": categories, "annotations": self.annotations}
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(whole | {"licenses": self.licenses} | changes), encoding="utf-8")
        return file
