"""Which SOP classes and transfer syntaxes the node takes: all that pynetdicom knows."""

from __future__ import annotations

from pynetdicom._globals import ALL_TRANSFER_SYNTAXES
from pynetdicom.sop_class import _STORAGE_CLASSES

__all__ = ["STORAGE_CLASSES", "STORAGE_NAMES", "TRANSFER_SYNTAXES", "UNCOMPRESSED"]

STORAGE_NAMES: dict[str, str] = {str(uid): name for name, uid in _STORAGE_CLASSES.items()}
"""Storage SOP class UID to its keyword."""

STORAGE_CLASSES = frozenset(STORAGE_NAMES)
"""All storage SOP classes."""

TRANSFER_SYNTAXES = frozenset(ALL_TRANSFER_SYNTAXES)
"""Objects are stored as they come, so any known encoding will do."""

UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
"""For services whose data sets the node itself reads or writes."""
