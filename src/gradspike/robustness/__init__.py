"""How accuracy falls when the input is attacked or corrupted: `gradspike evaluate attack=...` and `corrupt=...`.

options      the keys, and which of them go together
attacks      FGSM and PGD on pixels
surrogate    another surrogate gradient for the attack
corruptions  Gaussian noise on pixels, dropped events
measure      the accuracy of a run's checkpoints at each strength
record       the JSON file in the run folder
report       the table and the figure
"""
