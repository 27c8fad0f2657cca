"""What people look at: comparison, figures, timeline, the HTML report."""
