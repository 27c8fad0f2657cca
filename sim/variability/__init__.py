"""Numbers drawn, repeatably."""
