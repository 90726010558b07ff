"""What past studies taught, in the forms that suggestions are made of."""
