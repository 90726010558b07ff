"""Bayesian networks on grids: their exact marginals, their blocks, and samplers of them."""
