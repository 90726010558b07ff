"""Mixed models by formula."""
