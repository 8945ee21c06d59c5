"""Benchmarks: run with `python -m bench.NAME` from the repository's root; see README.md. Nothing in bbans imports it."""
