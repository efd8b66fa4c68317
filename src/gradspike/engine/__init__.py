"""Engines: one spiking layer over all its time steps, forward and backward. Same numbers, different speed.

`base` is their common signature, `registry` their names and the choice for a device, `eager` the reference. `fused`
runs a layer as one autograd function on kernels: the plain `formulas`, `compiled` by torch.compile, or `triton`,
written by hand for CUDA.
"""
