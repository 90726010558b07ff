"""What past tasks showed, in the forms that suggestions are made of."""
