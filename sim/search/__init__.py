"""The planner: the space of strategies, the search, its result."""
