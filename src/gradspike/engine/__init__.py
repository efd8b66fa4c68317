"""Engines: the neuron's forward and backward over all time steps, the same numbers at different speed.

`base.py` the signature they share, `registry.py` their names, `eager.py` the reference.
"""
