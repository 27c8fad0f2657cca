"""Clocks, spans and memory of a run."""
