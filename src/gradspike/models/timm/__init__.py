"""Convolutional networks of timm as spiking networks."""
