"""Any nn.Module as a model file."""
