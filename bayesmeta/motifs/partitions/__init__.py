"""Mixtures of an unknown number of components: partitions of points, and moves that split and merge their parts."""
