"""Posteriors without a closed form: modes, quadrature and points about them, for many small regressions at once."""
