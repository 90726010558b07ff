"""Tests of the sections of the benchmark of neural processes that have other methods beside."""
