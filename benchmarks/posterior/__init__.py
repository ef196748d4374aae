"""The judge of inverse problems: distances of every method to the exact posterior."""
