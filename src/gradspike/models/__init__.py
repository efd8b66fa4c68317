"""Backbones, one file each, with time folded into the batch.

`blocks`, `residual` and `pooling` are shared parts, and `encoder` turns images into spikes. `options` and `registry`
do not import torch. `timm` converts networks of that library.
"""
