"""The filter-normalised loss surface around trained weights (Li et al., "Visualizing the Loss Landscape of Neural
Nets", NeurIPS 2018).

command: the command line; surface: directions and the network at a point; points: the file of finished points, from
which a killed command goes on; numbers: grid, flatness and the files of the result. The picture: reporting/.
"""
