"""De-identification of DICOM files by PS3.15 annex E: header, pixels, what is left, and what is not claimed."""
