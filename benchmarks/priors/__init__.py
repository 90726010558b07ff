"""The benchmark of priors: `python -m benchmarks.priors`."""
