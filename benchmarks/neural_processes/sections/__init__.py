"""Sections that compare neural processes with other methods, by scores of single tasks."""
