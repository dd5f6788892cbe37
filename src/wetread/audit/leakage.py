"""T1: is any patient or image in two splits?

Decided here: the same patient, or the same pixels, in two splits fails. Copies that were scaled, compressed again,
mirrored or cut are shown to a person and warn until somebody has looked at them: the audit sees that two files show one
film, but not whether that was meant. Without names of patients nothing can pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from wetread.audit.background import Pictures
from wetread.audit.copies import SIDE, Registered, cut_copies
from wetread.audit.pictures import beside, film_rgb, png
from wetread.audit.result import QUESTIONS, Answered, AuditExample, AuditLine
from wetread.audit.thresholds import Thresholds
from wetread.datasets.scan import THUMB
from wetread.errors import DatasetRefused, expected
from wetread.imaging import load_image

if TYPE_CHECKING:
    import pandas as pd

    from wetread.datasets.manifest import Manifest

__all__ = ["Leak", "found_leaks", "leaks"]

Progress = Callable[[str, int, int], None]
_CODE = "T1"
_SHOWN = 4
_WHOLE = 0.985
"""Share of the area from which a copy counts as not cut: registration errs by a few tenths of a percent."""
_CURE = "divide the data set anew, copies and patients together: wetread dataset split DATASET --reset"


@dataclass(frozen=True)
class Leak:
    """What two splits share.

    ``patients``: ids in several splits. ``exact``: groups of rows with the same pixels, in several splits. ``copies``:
    pairs of rows that show the same film, changed. Rows count as in the manifest.
    """

    patients: tuple[str, ...]
    exact: tuple[tuple[int, ...], ...]
    copies: tuple[Registered, ...]


def leaks(
    manifest: Manifest, scan: pd.DataFrame, thresholds: Thresholds, progress: Progress | None = None
) -> tuple[AuditLine, Pictures]:
    """Answer T1 from a scan whose rows are those of the manifest.

    ``thresholds`` has none for T1: a single shared patient is one too many.

    Raises:
        DatasetRefused: a scan of other rows.
    """
    table = manifest.table
    if list(scan["path"]) != list(table["path"]):
        raise DatasetRefused(expected("a scan of this manifest", "other rows", "scan it again"))
    splits = sorted(str(name) for name in table["split"].dropna().unique())
    if len(splits) < 2:
        sentence = "Not assessable: the data set is not divided into splits."
        cure = "divide it: wetread dataset split DATASET"
        return AuditLine(
            code=_CODE, question=QUESTIONS[_CODE], answer="NOT ASSESSABLE", sentence=sentence, cure=cure
        ), {}
    found = found_leaks(manifest, scan, progress)
    nameless = int((table["patient"].isna() & table["split"].notna()).sum())
    answer = _answer(found, nameless)
    examples, pictures = _evidence(manifest, found)
    line = AuditLine(
        code=_CODE,
        question=QUESTIONS[_CODE],
        answer=answer,
        sentence=_sentence(answer, found, nameless, splits),
        n=int(table["split"].notna().sum()),
        examples=examples,
        notes=_notes(manifest, scan, found),
        cure="" if answer == "PASS" else _CURE,
    )
    return line, pictures


def found_leaks(manifest: Manifest, scan: pd.DataFrame, progress: Progress | None = None) -> Leak:
    """What the splits of a manifest share, by patient, by pixel, and by what the images show."""
    table = manifest.table
    known = table["split"].notna()
    per_patient = table["split"][known].groupby(table["patient"][known]).nunique()
    patients = tuple(sorted(str(name) for name in per_patient.index[per_patient > 1]))
    parts = np.full(len(table), -1, np.intp)
    parts[known.to_numpy()] = np.unique(table["split"][known].astype(str), return_inverse=True)[1]
    exact = _exact(scan, parts)
    copies = _copies(manifest, scan, parts, exact, progress)
    return Leak(patients, exact, copies)


def _exact(scan: pd.DataFrame, parts: NDArray[np.intp]) -> tuple[tuple[int, ...], ...]:
    """Groups of rows with the same pixels that lie in several splits."""
    usable = scan["pixels_sha256"].notna().to_numpy() & (parts >= 0)
    rows = np.flatnonzero(usable)
    groups = [rows[np.asarray(index)] for index in scan["pixels_sha256"].iloc[rows].groupby(
        scan["pixels_sha256"].iloc[rows].to_numpy()).indices.values()]  # fmt: skip
    return tuple(tuple(int(i) for i in group) for group in groups if np.unique(parts[group]).size > 1)


def _copies(
    manifest: Manifest,
    scan: pd.DataFrame,
    parts: NDArray[np.intp],
    exact: tuple[tuple[int, ...], ...],
    progress: Progress | None,
) -> tuple[Registered, ...]:
    readable = scan["thumb"].notna().to_numpy()
    thumbs = np.zeros((len(scan), THUMB, THUMB), np.uint8)
    thumbs[readable] = np.stack([np.frombuffer(t, np.uint8) for t in scan["thumb"][readable]]).reshape(-1, THUMB, THUMB)
    known = {(a, b) for group in exact for a in group for b in group if a < b}

    def load(row: int) -> NDArray[np.float32]:
        return _small(manifest, row)

    found = cut_copies(thumbs, np.where(readable, parts, -1), load, progress)
    return tuple(pair for pair in found if (pair.first, pair.second) not in known)


def _small(manifest: Manifest, row: int) -> NDArray[np.float32]:
    pixels = load_image(manifest.path_of(str(manifest.table["path"].iloc[row]))).pixels
    picture = PilImage.fromarray(pixels * np.float32(255))
    return np.asarray(picture.resize((SIDE, SIDE), PilImage.Resampling.BILINEAR), np.float32)


def _answer(found: Leak, nameless: int) -> Answered:
    if found.patients or found.exact:
        return "FAIL"
    return "WARN" if found.copies or nameless else "PASS"


def _sentence(answer: Answered, found: Leak, nameless: int, splits: list[str]) -> str:
    between = " and ".join([", ".join(splits[:-1]), splits[-1]])
    if answer == "PASS":
        return f"No patient and no image, changed or not, is in two of {between}."
    if answer == "FAIL":
        counts = [_count(len(found.patients), "patient")] if found.patients else []
        counts += [f"{_count(len(found.exact), 'image')} pixel for pixel"] if found.exact else []
        counts += [_count(len(found.copies), "changed copy", "changed copies")] if found.copies else []
        return f"In two of {between}: {', '.join(counts)}; figures on such a split are too good."
    if found.copies:
        pairs = _count(len(found.copies), "pair of images looks", "pairs of images look")
        return f"{pairs} like one film in two of {between}; a person should look."
    without = _count(nameless, "image has", "images have")
    return f"{without} no patient, so that a patient in two of {between} cannot be ruled out."


def _count(n: int, one: str, several: str = "") -> str:
    return f"{n} {one if n == 1 else several or one + 's'}"


def _notes(manifest: Manifest, scan: pd.DataFrame, found: Leak) -> tuple[str, ...]:
    table = manifest.table
    mirrored = sum(pair.mirrored for pair in found.copies)
    cut = sum(pair.shown < _WHOLE for pair in found.copies)
    notes = [
        f"looked for: the same patient, the same pixels, and the same film scaled, compressed, mirrored or cut "
        f"({_count(len(found.copies), 'pair')}, of which {mirrored} mirrored and {cut} cut); rotated copies are not "
        "looked for"
    ]
    if found.patients:
        notes.append(f"patients in several splits: {len(found.patients)} of {table['patient'].nunique()}")
    unreadable = int(scan["error"].notna().sum())
    if unreadable:
        notes.append(f"{_count(unreadable, 'image')} could not be read and {'was' if unreadable == 1 else 'were'} "
                     "not compared")  # fmt: skip
    nameless = int(table["patient"].isna().sum())
    if nameless:
        notes.append(f"{_count(nameless, 'image has', 'images have')} no patient")
    return (*notes, *manifest.meta.warnings)


def _evidence(manifest: Manifest, found: Leak) -> tuple[tuple[AuditExample, ...], Pictures]:
    """The first pairs side by side."""
    pairs = [(group[0], group[1], "the same pixels") for group in found.exact]
    pairs += [(p.first, p.second, _change(p)) for p in sorted(found.copies, key=lambda p: -p.detail)]
    examples, pictures = [], {}
    for number, (first, second, what) in enumerate(pairs[:_SHOWN], 1):
        films = [film_rgb(np.rint(_small(manifest, row)).astype(np.uint8)) for row in (first, second)]
        name = f"T1-pair-{number}.png"
        pictures[name] = png(beside(films))
        places = [f"{manifest.table['path'].iloc[r]} ({manifest.table['split'].iloc[r]})" for r in (first, second)]
        examples.append(AuditExample(picture=name, caption=f"{places[0]} and {places[1]}: {what}"))
    return tuple(examples), pictures


def _change(pair: Registered) -> str:
    words = ["mirrored"] if pair.mirrored else []
    words += [f"cut to {100 * pair.shown:.0f} % of its area"] if pair.shown < _WHOLE else []
    return f"{' and '.join(words) or 'the same film'}, correlation of the fine structure {pair.detail:.2f}"
