"""What is trained: decoders, other networks, and the files that describe them."""
