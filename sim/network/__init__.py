"""Seconds of messages and collectives on a cluster."""
