"""Augmentation of batches on their device, determined by (seed, epoch, sample).

`batch` applies the options of a data set: `resample` (shift, roll, mirror, cutout), `nda` for event frames, and
`autoaugment` with its `policies` and `picture_operations`, `rand_augment` and `color_jitter` with the operations of
`pillow`, `random_erasing`. `counter_random` generates the random numbers; `draws` assigns a number to each random
decision.
"""
