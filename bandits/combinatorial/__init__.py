"""Sets of arms, of which each arm shows its reward."""
