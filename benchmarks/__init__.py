"""Benchmarks: `python dev.py bench NAME`. Results, with machine and versions, in `results/`."""
