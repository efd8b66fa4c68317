"""Norms, which turn a layer's input into its current: `base` the batch norm they share, `steps` those with parameters
of their own for each time step, `synced` statistics over all ranks.
"""
