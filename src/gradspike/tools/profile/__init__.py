"""The time and memory of a training step.

command  `gradspike profile`: its arguments and the order of its steps
measure  a real training of a few steps, with time marks between kinds of work
clock    time between marks
memory   what a step keeps in memory
table    prints the result
"""
