"""What every policy does: arms by name, choices by number, rewards that come late."""
