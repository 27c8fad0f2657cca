"""Failures, checkpoints, goodput."""
