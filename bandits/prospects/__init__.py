"""What a posterior says of the arms, and how probable each choice is: exactly, or by draws with their error."""
