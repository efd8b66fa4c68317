"""Shapes, parameters, MACs and kept activations of a network.

command  `gradspike describe`: its arguments and the order of its steps
measure  measures the network
run      measures a run on its data: NeuroBench's metrics
table    prints the result
"""
