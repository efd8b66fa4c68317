"""Engines: the neuron's forward and backward over all time steps, the same numbers at different speed.

`base.py` the signature they share, `registry.py` their names and the choice for a device, `eager.py` the reference.
`fused.py` the layer as one autograd function of any kernels: `formulas.py` as they stand, `compiled.py` through
torch.compile, `triton_engine.py` written by hand for CUDA.
"""
