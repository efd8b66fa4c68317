"""The cost of a network: `counting` of operations and kept tensors, `synapses`, `energy`, `neurobench`."""
