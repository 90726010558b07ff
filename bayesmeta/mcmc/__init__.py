"""Draws from posteriors by Markov chains."""
