"""Arithmetic that knows no model: factors of matrices, sums in place of integrals, searches, special functions."""
