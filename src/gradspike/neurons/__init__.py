"""Neurons, one file each, their options inside."""
