"""Distributions of mean rewards over tasks, from which regret is measured."""
