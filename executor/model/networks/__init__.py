"""Named networks as torch modules, made from the description that their costs are made from."""
