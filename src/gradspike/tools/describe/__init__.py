"""Shapes, parameters, MACs and kept activations of a network.

command  `gradspike describe`: its arguments and the order of its steps
measure  measures the network
table    prints the result
"""
