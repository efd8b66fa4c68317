"""Shapes, parameters, MACs and kept activations of a network: measured (measure.py), shown (table.py), as a command.

synapses.py measures what layers are given, energy.py estimates from it what an inference costs.
"""
