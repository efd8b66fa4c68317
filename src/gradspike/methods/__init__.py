"""Surrogate-gradient methods, one file each; `registry.py` has their names and options, `base.py` what they share."""
