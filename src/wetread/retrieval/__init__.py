"""Similar past cases: embeddings kept on disk or in PostgreSQL, searched without showing a patient to himself."""

from __future__ import annotations

__all__: list[str] = []
