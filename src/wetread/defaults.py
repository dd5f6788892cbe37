"""What is taken where nobody says; the command line, the service and the Python API ask here. Imports nothing."""

__all__ = ["DEFAULT_READER"]

DEFAULT_READER = "chest-pneumonia-lungs"
"""The shipped reader that does best in its own audit: without the lungs it tells next to nothing."""
