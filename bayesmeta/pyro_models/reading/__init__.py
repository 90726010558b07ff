"""What a Pyro model is, read from its runs: sites, rows, and densities of many data sets at once."""
