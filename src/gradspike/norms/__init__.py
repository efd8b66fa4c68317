"""Norms before the neuron, one file each."""
