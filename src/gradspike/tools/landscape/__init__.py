"""The filter-normalised loss surface around trained weights (Li et al., "Visualizing the Loss Landscape of Neural
Nets", NeurIPS 2018).

command  `gradspike landscape`: its arguments and the order of its steps
options  the arguments
surface  directions, and the network at a point
points   the file of finished points; an interrupted command continues from it
numbers  the grid, its flatness, and the files of the result
plot     the plot
"""
