"""Priors for tuning: learned from past studies, tables, or by another family."""
