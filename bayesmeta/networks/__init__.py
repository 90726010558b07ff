"""Priors on features that networks learn."""
