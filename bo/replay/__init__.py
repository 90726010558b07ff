"""Tuning on tables of finished evaluations: methods side by side, and the demonstration."""
