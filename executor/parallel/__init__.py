"""How ranks share one step."""
