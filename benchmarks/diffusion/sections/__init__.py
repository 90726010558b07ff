"""Parts of the benchmark of diffusion priors."""
