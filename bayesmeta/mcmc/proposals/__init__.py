"""Densities that chains propose from: learned, fitted to each task, or adapted by draws."""
