"""Loss against seconds."""
