"""Tests of pages, examples, files of the project and of the tests themselves."""
