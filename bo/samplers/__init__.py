"""Optuna's samplers, and what they know when they are asked."""
