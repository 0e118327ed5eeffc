"""Benchmarks that others can run: `make bench`, or `python -m hil.bench --help`. What they say: docs/benchmarks.md."""
