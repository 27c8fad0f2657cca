"""Networks of any size as arrays: which links a message crosses, from a few numbers of a cluster file."""
