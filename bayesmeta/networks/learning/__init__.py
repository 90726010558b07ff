"""How networks learn: steps up an objective, when they end, and how they go on after a break."""
