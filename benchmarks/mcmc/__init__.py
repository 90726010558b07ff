"""Markov chains: posteriors of many tasks, and blocks that are proposed by networks."""
