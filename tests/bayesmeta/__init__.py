"""Tests of `bayesmeta`, shelved as the package is."""
