"""What can be known of a training run without running it. Never imports torch."""
