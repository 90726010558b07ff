"""Tests of `bandits`, shelved as the package is."""
