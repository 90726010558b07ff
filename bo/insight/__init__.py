"""What a prior for tuning believes, for people to look at."""
