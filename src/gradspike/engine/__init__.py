"""Engines: one spiking layer over all its time steps, forward and backward. Same numbers, different speed.

`base` is the signature they share, `registry` their names and the choice for a device, `eager` the reference. `fused`
is the layer as one autograd function of any kernels: `formulas` as they stand, `compiled` by torch.compile, `triton`
written by hand for CUDA.
"""
