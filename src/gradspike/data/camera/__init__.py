"""The simulated event camera (`camera`) and the moving scene it records for cifar10dvs_sim (`loop_scenes`)."""
