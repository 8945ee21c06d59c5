"""Benchmarks: run as `python -m bench.NAME` from the repository's root; see README.md. bbans never imports them."""
