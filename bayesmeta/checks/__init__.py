"""Is a posterior as sure as it should be, and a prior better than another? Checks, and their plots."""
