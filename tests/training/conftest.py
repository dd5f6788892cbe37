"""Fixtures of the training tests: phantoms are drawn once in a session and relabelled for each task."""

from __future__ import annotations

import pytest

from tests.training.support import KINDS, SIDE_PX, organ_films, relabelled
from wetread.datasets.manifest import Manifest
from wetread.datasets.phantoms import DatasetPlan, make_dataset


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """72 films with up to two findings; labels ``label_<kind>``, no split."""
    plan = DatasetPlan(
        72,
        task="multilabel",
        kinds=KINDS,
        prevalence=0.6,
        format="png16",
        size_px=SIDE_PX,
        masks=False,
        fractions={},
    )
    return make_dataset(tmp_path_factory.mktemp("phantoms") / "set", plan)


@pytest.fixture(scope="session")
def binary(phantoms: Manifest) -> Manifest:
    """Normal against ill, split by patient."""
    return relabelled(phantoms, "binary")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """24 films with masks of organs, split by patient."""
    return organ_films(tmp_path_factory.mktemp("organs") / "set")
