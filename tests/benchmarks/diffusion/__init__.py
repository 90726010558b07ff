"""Tests of the benchmark of diffusion priors."""
