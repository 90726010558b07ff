"""Posteriors that are sampled, each as this package and as its peers want it."""
