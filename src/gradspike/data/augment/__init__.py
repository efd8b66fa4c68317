"""Augmentation of batches on their device, reproducible from (seed, epoch, sample).

`batch` applies the options of a data set: `resample` (shift, roll, mirror, cutout), `nda` for event frames, and
`autoaugment` with its `policies` and `picture_operations`. `counter_random` makes the random numbers, `draws` numbers
the random decisions.
"""
