"""Benchmarks: each is a script (``python -m benchmarks.NAME``) that writes one CSV below results/."""
