"""Diffusion priors beside exact answers and simpler priors."""
