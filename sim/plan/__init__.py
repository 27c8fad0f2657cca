"""Job and Strategy, and the Plan that they become. Knows no seconds and no hardware."""
