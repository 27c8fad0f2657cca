"""The plan, for real: the only place that imports torch."""
