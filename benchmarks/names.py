"""Names of candidates, by which the tables know them."""

TWINS = ("ReLU twin", "ReLU twin, compiled")
GRAPHS = ", CUDA graphs"
"""End of the name of a candidate with trainer.cuda_graphs."""
