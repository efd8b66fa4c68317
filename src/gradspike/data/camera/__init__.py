"""The simulated event camera (`camera`) and the moving scene that it records for CIFAR10-DVS (`loop_scenes`)."""
