"""DICOM results and the DICOM network."""

from __future__ import annotations

__all__: list[str] = []
