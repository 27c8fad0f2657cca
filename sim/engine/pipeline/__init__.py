"""Pipelines as arrays."""
