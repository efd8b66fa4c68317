"""Backbones: one file each, built from stateless layers with time folded into the batch and spiking layers."""
