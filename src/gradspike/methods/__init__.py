"""Surrogate-gradient methods, one file each with its options; `registry` has their names, `base` their interface."""
