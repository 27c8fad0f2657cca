"""The model, its data and the training loop of one rank."""
