"""Augmentations of a batch on its device, reproducible from (seed, epoch, sample)."""
