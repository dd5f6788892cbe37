"""Names of encoders."""

from __future__ import annotations

import pytest
import timm

from wetread.errors import UsageError
from wetread.models.registry import ALIASES, EMBEDDED, OWN, resolve_architecture


@pytest.mark.parametrize("name", [*OWN, EMBEDDED, "resnet18", "resnet18.a1_in1k", "vit_tiny_patch16_224"])
def test_full_names_are_themselves(name: str) -> None:
    assert resolve_architecture(name) == name


def test_aliases_lead_to_networks_that_exist() -> None:
    for alias, name in ALIASES.items():
        assert resolve_architecture(alias) == name
        assert resolve_architecture(alias.upper()) == name
        assert timm.is_model(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet81", "resnet"), ("densnet201", "densenet201"), ("ResNet18", "resnet18"), ("VGG-16", "vgg16")],
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(
        UsageError, match=rf"expected the name of a timm network, cnn or pixels, got '{name}'; try .*{hint}"
    ):
        resolve_architecture(name)


def test_a_name_like_no_other_suggests_the_embedded_one() -> None:
    with pytest.raises(UsageError, match=f"try {EMBEDDED}"):
        resolve_architecture("§§§")
