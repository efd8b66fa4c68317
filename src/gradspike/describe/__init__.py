"""Shapes, parameters, MACs and kept activations of a network: measured (measure.py), shown (table.py), as a command."""
