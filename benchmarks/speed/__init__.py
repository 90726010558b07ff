"""The benchmark of speed: `python -m benchmarks.speed`."""
