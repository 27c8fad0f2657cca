"""What a layer computes: kernels, their FLOPs and bytes, and their seconds on an accelerator."""
