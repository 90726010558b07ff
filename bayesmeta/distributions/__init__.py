"""Distributions that torch lacks, and functions that are the same at every row."""
