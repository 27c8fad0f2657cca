"""What is trained on: text, digits, synthetic samples, or a user's own."""
