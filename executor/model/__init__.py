"""What is trained for real: the decoder, its data and optimizer, and one process to agree with."""
