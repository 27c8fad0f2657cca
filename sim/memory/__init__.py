"""What stands in memory, by rank and over a step."""
