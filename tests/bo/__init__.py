"""Tests of `bo`, shelved as the package is."""
