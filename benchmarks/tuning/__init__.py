"""The benchmark of tuning: `python -m benchmarks.tuning`."""
