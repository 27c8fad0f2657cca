"""Processes of a run: started, watched, gathered."""
