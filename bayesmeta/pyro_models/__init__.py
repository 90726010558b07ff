"""Pyro models as families of priors: their densities for many data sets at once, learning, conditioning, saving."""
