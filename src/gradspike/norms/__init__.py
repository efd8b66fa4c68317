"""Norms, which turn a layer's input into its current: `base` the batch norm they share, `synced` over all ranks."""
