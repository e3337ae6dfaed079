"""Measure heroes beside its peers: `python -m benchmarks`. Nothing in heroes/ imports this package."""
