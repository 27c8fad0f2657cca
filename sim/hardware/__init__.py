"""Accelerators, links, nodes and clusters, as data."""
