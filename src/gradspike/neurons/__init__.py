"""Neurons, one file each with its options; `recursion` is the step they share, `base` and `registry` as for methods."""
