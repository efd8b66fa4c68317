"""What a network costs: `counting` of operations and kept tensors, `synapses`, `energy`."""
