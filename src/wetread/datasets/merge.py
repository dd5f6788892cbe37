"""Several data sets as one: classes brought to common names, patients kept apart, the origin recorded as source.

Decided here: a patient number of one set never means a patient of another; the source of an image is the set it
came from, because that is what a reader of the merged set could learn instead of the disease; sites that a set names
itself are kept in the column ``site``. Splits are dropped: the merged set is divided anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wetread.datasets.manifest import DatasetMeta, Manifest
from wetread.errors import DatasetRefused, UsageError, expected

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["merge"]

_IDENTITIES = ("patient", "study", "series")


def merge(parts: Sequence[Manifest], name: str, classes: Sequence[str], renamed: Mapping[str, str]) -> Manifest:
    """Return one manifest of the images of ``parts`` that have one of ``classes``, the negative class first.

    ``renamed``: class of a part -> class of the merged set; a class that is in neither is an error, and images
    without a label are left out.

    Raises:
        UsageError: fewer than two parts, parts of one name, or fewer than two classes.
        DatasetRefused: a multi-label part, or a class without a place in the merged set.
    """
    import pandas as pd

    _check(parts, classes)
    root = Path(os.path.commonpath([place for part in parts for place in (part.root, part.mask_path_of(""))]))
    table = pd.concat([_rows(part, root, classes, renamed) for part in parts], ignore_index=True)
    organs = {part.meta.organ for part in parts}
    licences = dict.fromkeys(part.meta.licence or "unknown" for part in parts)
    meta = DatasetMeta(
        name=name,
        task="binary" if len(classes) == 2 else "multiclass",
        classes=tuple(classes),
        root=str(root),
        mask_root=str(root),
        licence="; ".join(licences),
        label_policy="classes of several data sets under common names; the source is the data set",
        allowed_flips=tuple(sorted(set.intersection(*(set(part.meta.allowed_flips) for part in parts)))),
        organ=organs.pop() if len(organs) == 1 else None,
        importer="merge",
        warnings=tuple(f"{part.meta.name}: {warning}" for part in parts for warning in part.meta.warnings),
    )
    return Manifest(table, meta, root)


def _check(parts: Sequence[Manifest], classes: Sequence[str]) -> None:
    names = [part.meta.name for part in parts]
    if len(parts) < 2 or len(set(names)) < len(names):
        raise UsageError(expected("at least two data sets of different names", ", ".join(names), "import with --name"))
    if len(set(classes)) < 2:
        raise UsageError(expected("at least two classes", ", ".join(classes) or "none", "name them with --classes"))
    for part in parts:
        if part.meta.task == "multilabel":
            raise DatasetRefused(
                expected("data sets with one label for each image", f"{part.meta.name} with several", "merge others")
            )


def _rows(part: Manifest, root: Path, classes: Sequence[str], renamed: Mapping[str, str]) -> pd.DataFrame:
    table = part.table.drop(columns=["fold", "split"], errors="ignore")
    table = table[table["label"].notna()].copy()
    label = table["label"].map(lambda one: renamed.get(f"{part.meta.name}:{one}", renamed.get(one, one)))
    foreign = sorted(set(label) - set(classes))
    if foreign:
        raise DatasetRefused(
            expected(
                f"classes among {', '.join(classes)}",
                f"{', '.join(foreign)} in {part.meta.name}",
                "give each a place with --rename THEIRS=OURS",
            )
        )
    for column in _IDENTITIES:
        table[column] = (part.meta.name + "/" + table[column]).where(table[column].notna())
    table["path"] = [str(part.root.relative_to(root) / path) for path in table["path"]]
    masks = part.mask_path_of("").relative_to(root)
    for column in [name for name in map(str, table.columns) if name == "mask" or name.startswith("mask_")]:
        table[column] = [str(masks / one) if isinstance(one, str) else None for one in table[column]]
    return table.assign(label=label, site=table["source"], source=part.meta.name)
