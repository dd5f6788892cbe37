"""What the lines about data look at: a sample of the images, decoded once, with labels, sources and organ.

Decided here: who is in the sample. Every patient gives one image before anybody gives a second, and labels and
sources keep their shares, so that rare ones are not lost. A mask counts as annotated only where all images of
the sample have one; else a segmenter draws all of them, because two origins of masks would be a shortcut themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.audit.features import GRID, on_grid, texture_of
from wetread.errors import DatasetRefused, ImageRefused, UsageError, expected
from wetread.imaging import load_image
from wetread.runtime import in_order
from wetread.types import Image

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest
    from wetread.models.guide import Guide

__all__ = ["FACTS", "LIMIT", "Material", "gather_material", "material_of_arrays"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""
Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

LIMIT = 1000
"""Images of a sample: the interval of an AUROC is then about 0.07 wide, and decoding takes a minute."""
FACTS = ("rows", "columns", "bits", "format", "bytes", "bytes per pixel")
"""Facts of a file, in the order of :attr:`Material.facts`; ``format`` is a code."""
_FORMATS = ("DICOM", "PNG", "JPEG", "TIFF", "GIF", "BMP")
_BATCH = 16


@dataclass(frozen=True)
class Material:
    """N images of a data set as the lines about data see them.

    ``names``: paths as in the manifest. ``labels``: names of the L outputs. ``targets``: float32 (N, L), 1, 0 or NaN
    (unknown). ``patients``: (N,), an image without one is its own. ``sources``: (N,), empty where unknown, or None
    without that column. ``splits``: (N,), empty where unknown. ``grey``: uint8 (N, GRID, GRID). ``texture``: float32
    (N, CELLS, CELLS, textures), see :func:`~wetread.audit.features.texture_of`. ``masks``: bool (N, GRID, GRID), the
    organ as annotated or found, empty where none was; None where no image has one. ``margin``: share of the side by
    which masks are widened before they hide. ``facts``: float32 (N, len(FACTS)). ``of``: images that the sample was
    drawn from.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    targets: NDArray[np.float32]
    patients: NDArray[np.str_]
    sources: NDArray[np.str_] | None
    splits: NDArray[np.str_]
    grey: NDArray[np.uint8]
    texture: Pixels
    masks: Mask | None
    facts: Pixels
    organ: str | None
    organ_from: str
    of: int
    margin: float = 0.03

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Material:
        """The images at ``index``, in that order."""
        chosen: dict[str, Any] = {"names": tuple(np.asarray(self.names, object)[index])}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                chosen[item.name] = value[index]
        return replace(self, **chosen)


def gather_material(
    manifest: Manifest,
    finder: Guide | None = None,
    limit: int = LIMIT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Material:
    """Decode a sample of a data set.

    Args:
        manifest: The data set; images without any known label are left out where others have one.
        finder: Finds the organ where masks are not annotated for every image of the sample.
        limit: Images at most.
        seed: Decides who is drawn.
        progress: Called with (stage, done, total).

    Returns:
        The sample, in the order of the manifest.

    Raises:
        DatasetRefused: An image or a mask that cannot be read.
        UsageError: A limit below 1.
    """
    if limit < 1:
        raise UsageError(expected("a limit of at least 1 image", limit, "ask for more"))
    targets, labels = _targets(manifest)
    known = np.isfinite(targets).any(axis=1) if labels else np.ones(len(manifest.table), bool)
    rows = _sampled(manifest.table, targets, np.flatnonzero(known), limit, seed)
    table = manifest.table.iloc[rows].reset_index(drop=True)
    organ = _organ(manifest, table, finder)
    grey, texture, masks, facts = [], [], [], []
    for number, film in enumerate(_films(manifest, table, organ), 1):
        grey.append(film.grey)
        texture.append(film.texture)
        masks.append(film.mask)
        facts.append(film.facts)
        if progress is not None:
            progress("looking at images", number, len(table))
    return Material(
        name=manifest.meta.name,
        names=tuple(table["path"]),
        labels=labels,
        targets=targets[rows],
        patients=table["patient"].fillna(table["path"]).astype(str).to_numpy(dtype=np.str_),
        sources=_words(table["source"]) if table["source"].notna().any() else None,
        splits=_words(table["split"]),
        grey=np.stack(grey),
        texture=np.stack(texture),
        masks=None if organ is None else np.stack([m for m in masks if m is not None]),
        facts=np.stack(facts),
        organ=None if organ is None else organ.name,
        organ_from="no masks and no segmenter" if organ is None else organ.told,
        of=int(known.sum()),
        margin=organ.margin if organ is not None else 0.0,
    )


def material_of_arrays(
    images: Sequence[Pixels],
    targets: NDArray[np.float32],
    *,
    masks: Sequence[Mask] | None = None,
    patients: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    margin: float = 0.03,
) -> Material:
    """The same from images in memory, each float32 (rows, columns) in [0, 1]; nothing is sampled.

    ``targets``: float32 (N, L). ``masks``: bool, each of the size of its image. File facts are those of 8-bit
    files without compression.
    """
    n = len(images)
    drawn = None if masks is None else np.stack([_mask_on_grid(mask) for mask in masks])
    return Material(
        name="images in memory",
        names=tuple(f"image {i}" for i in range(n)),
        labels=tuple(f"label {i + 1}" if targets.shape[1] > 1 else "positive" for i in range(targets.shape[1])),
        targets=targets.astype(np.float32),
        patients=np.array([str(i) for i in range(n)] if patients is None else list(patients)),
        sources=None if sources is None else np.array(list(sources)),
        splits=np.full(n, ""),
        grey=np.stack([on_grid(image) for image in images]),
        texture=np.stack([texture_of(image) for image in images]),
        masks=drawn,
        facts=np.array([[*i.shape, 8, 1, i.size, 1] for i in images], np.float32),
        organ=None if masks is None else "organ",
        organ_from="no masks" if masks is None else "masks in memory",
        of=n,
        margin=margin,
    )


def _words(column: pd.Series) -> NDArray[np.str_]:
    return column.fillna("").astype(str).to_numpy(dtype=np.str_)


def _targets(manifest: Manifest) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    from wetread.training.data import labels_of, targets_of

    if not manifest.meta.labelled:
        return np.empty((len(manifest.table), 0), np.float32), ()
    return targets_of(manifest.table, manifest.meta), labels_of(manifest.meta)


def _sampled(
    table: pd.DataFrame, targets: NDArray[np.float32], rows: NDArray[np.intp], limit: int, seed: int
) -> NDArray[np.intp]:
    """Row numbers of the sample, ascending; strata are the combinations of labels and source."""
    if len(rows) <= limit:
        return rows
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    patients = table["patient"].fillna(table["path"]).iloc[shuffled]
    turn = patients.groupby(patients).cumcount().to_numpy()  # 0 for the first image of each patient, ...
    queue = shuffled[np.argsort(turn, kind="stable")]
    words = table["source"].fillna("").astype(str).iloc[queue].to_numpy()
    strata = [f"{row.tolist()} {source}" for row, source in zip(targets[queue], words, strict=True)]
    codes = np.unique(strata, return_inverse=True)[1]
    place = np.empty(len(queue))
    for code in range(codes.max() + 1):  # spread each stratum evenly over the queue: its share stays, whatever is cut
        members = np.flatnonzero(codes == code)
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(queue[np.argsort(place, kind="stable")[:limit]])


@dataclass(frozen=True)
class _Organ:
    """Where the masks come from: annotated, or the finder."""

    name: str
    told: str
    finder: Guide | None
    margin: float


def _organ(manifest: Manifest, table: pd.DataFrame, finder: Guide | None) -> _Organ | None:
    from wetread.datasets.masks import mask_column
    from wetread.models.bundle import HIDING_MARGIN

    organ = finder.spec.organ if finder is not None else manifest.meta.organ
    column = None if organ is None else mask_column(organ, manifest)
    if organ is not None and column is not None and bool(table[column].notna().all()):
        return _Organ(organ, f"masks of the {organ} that came with the data", None, HIDING_MARGIN)
    if finder is None:
        return None
    card = finder.segmenter.card
    return _Organ(finder.spec.organ, f"the {finder.spec.organ} as the segmenter {card.name} finds it", finder,
                  finder.spec.margin)  # fmt: skip


@dataclass(frozen=True)
class _Film:
    grey: NDArray[np.uint8]
    texture: Pixels
    mask: Mask | None
    facts: NDArray[np.float32]


def _films(manifest: Manifest, table: pd.DataFrame, organ: _Organ | None) -> Iterator[_Film]:
    """Decode in threads, segment in batches."""
    rows = [row for _, row in table.iterrows()]
    jobs = in_order(lambda row: _decoded(manifest, row), rows)
    pairs = zip(jobs, rows, strict=True)
    while batch := list(islice(pairs, _BATCH)):
        for (image, row), mask in zip(batch, _masks(manifest, batch, organ), strict=True):
            yield _Film(on_grid(image.pixels), texture_of(image.pixels), mask, _facts(image, manifest.path_of(row)))


def _decoded(manifest: Manifest, row: pd.Series) -> Image:
    file = manifest.path_of(row)
    try:
        return load_image(file)
    except ImageRefused as error:
        cure = "run `wetread dataset check` and leave it out"
        raise DatasetRefused(expected("images that can be read", f"{file.name} ({error})", cure)) from error


def _masks(manifest: Manifest, batch: Sequence[tuple[Image, pd.Series]], organ: _Organ | None) -> list[Mask | None]:
    if organ is None:
        return [None] * len(batch)
    if organ.finder is not None:
        return list(_found(organ.finder, [image for image, _ in batch]))
    from wetread.datasets.masks import load_masks

    masks = [load_masks(manifest, row, [organ.name], *image.pixels.shape)[organ.name] for image, row in batch]
    return [None if mask is None else _mask_on_grid(mask) for mask in masks]


def _found(finder: Guide, images: Sequence[Image]) -> Iterator[Mask]:
    """Masks on the grid, bool (GRID, GRID): probabilities are brought to the grid without the native size between."""
    from wetread.models.inputs import restore_map, to_batch

    spec, which = finder.segmenter.card.input, finder.segmenter.organs.index(finder.spec.organ)
    found = finder.segmenter.forward(to_batch([image.pixels for image in images], spec))[:, which].numpy()
    for image, heat in zip(images, found, strict=True):
        factor = 2 * GRID / max(image.pixels.shape)
        rows, columns = (max(1, round(side * factor)) for side in image.pixels.shape)
        picture = PilImage.fromarray(restore_map(heat, spec, rows, columns))
        yield np.asarray(picture.resize((GRID, GRID), PilImage.Resampling.BILINEAR)) >= np.float32(0.5)


def _mask_on_grid(mask: Mask) -> Mask:
    """Bring bool (rows, columns) to the grid; a pixel of the grid that holds any of the organ is organ."""
    picture = PilImage.fromarray(mask.astype(np.float32))
    return np.asarray(picture.resize((GRID, GRID), PilImage.Resampling.BOX)) > 0


def _facts(image: Image, file: Path) -> NDArray[np.float32]:
    facts, size = image.facts, file.stat().st_size
    kind = _FORMATS.index(facts.format) if facts.format in _FORMATS else len(_FORMATS)
    return np.array(
        [facts.rows, facts.columns, facts.bits, kind, size, size / (facts.rows * facts.columns)], np.float32
    )
