"""From measurements to a cluster's curves."""
