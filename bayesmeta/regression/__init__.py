"""Linear regressions, and arms whose rewards are correlated."""
