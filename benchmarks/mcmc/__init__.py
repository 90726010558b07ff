"""How many effective draws a second of CPU time gives: this package and its peers, with everything on the clock."""
