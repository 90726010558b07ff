"""The benchmark of bandits: `python -m benchmarks.bandits`."""
