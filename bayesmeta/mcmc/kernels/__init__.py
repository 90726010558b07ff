"""Steps of Markov chains that leave their target unchanged, for many tasks and chains at once."""
