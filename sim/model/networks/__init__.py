"""Models that are no decoders: lists of layers with their operations, and the builders of known ones."""
