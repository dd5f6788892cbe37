"""The reference pages that people write: each names every column, field, error and setting that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wetread import errors
from wetread.datasets.columns import COLUMNS
from wetread.datasets.manifest import DatasetMeta, SplitMeta
from wetread.models.card import DataCard, GateSpec, HeadSpec, InputSpec, ReaderCard, SegmenterCard
from wetread.reading.mask_quality import FLAGS
from wetread.reading.measures import ORGANS
from wetread.reading.organs import OrganFinding, OrganReading
from wetread.training.augment import RECIPES
from wetread.training.segment_losses import SEGMENT_LOSSES
from wetread.training.segment_scores import OVERLAPS
from wetread.types import Agreement, Estimate, Measure, OperatingPoint, Read, Span

CODE = re.compile(r"`([^`\n]+)`")
NAMES = {
    "docs/reference/manifest.md": [*COLUMNS, *DatasetMeta.model_fields, *SplitMeta.model_fields],
    "docs/reference/reader-bundle.md": [
        name
        for record in (ReaderCard, HeadSpec, InputSpec, GateSpec, DataCard, Estimate, OperatingPoint)
        for name in record.model_fields
    ],
    "docs/how-to/train-a-reader.md": list(RECIPES),
    "docs/how-to/read-images.md": [*Read.model_fields, *Agreement.model_fields],
    "docs/reference/segmentation.md": [
        *(name for record in (OrganReading, OrganFinding, Measure, Span) for name in record.model_fields),
        *(*SegmenterCard.model_fields, *ORGANS, *OVERLAPS),
    ],
    "docs/explanation/segmentation-losses.md": list(SEGMENT_LOSSES),
}
NOT_WRITTEN_OUT = {"split"}
"""``[split]`` stands as a table of its own."""


def words_in_code(text: str) -> set[str]:
    return {word for span in CODE.findall(text) for word in re.findall(r"[\w<>-]+", span)}


@pytest.mark.parametrize("page", NAMES)
def test_every_name_is_on_its_page(repository: Path, page: str) -> None:
    written = words_in_code((repository / page).read_text(encoding="utf-8"))
    assert [name for name in NAMES[page] if name not in written | NOT_WRITTEN_OUT] == []


def test_the_manifest_page_names_no_column_that_is_not_there(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "manifest.md").read_text(encoding="utf-8")
    table = text.split("## Columns")[1].split("Any other column")[0]
    named = {name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in CODE.findall(row)}
    assert named == {*COLUMNS, "label_<class>"}


def test_the_page_of_errors_draws_the_tree_of_the_code(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    tree = text.split("```text\n")[1].split("```")[0]
    drawn = [re.findall(r"\w+", line)[0] for line in tree.splitlines()]
    assert sorted(drawn) == sorted(name for name in errors.__all__ if name != "expected")
    depth = {name: tree.splitlines()[i].index(name) // 4 for i, name in enumerate(drawn)}
    for name in drawn:
        found = getattr(errors, name)
        assert depth[name] == len(found.__mro__) - len(errors.WetreadError.__mro__)
        line = next(line for line in tree.splitlines() if name in line)
        if "exit_code" in vars(found) or "exit" in line:
            assert f"exit {found.exit_code} " in line


def test_the_page_of_segmentation_has_every_flag(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "segmentation.md").read_text(encoding="utf-8")
    spans = CODE.findall(text.split("## Flags")[1].split("## Scores")[0])
    assert [flag for flag in FLAGS if flag not in spans] == []
