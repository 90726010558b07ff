"""The Gaussian process of one study alone, which no past can mislead, and BoTorch's as a baseline."""
