"""Seconds and bytes of a plan's actions."""
