"""Backbones, one file each, with time folded into the batch.

`blocks`, `residual` and `pooling` are shared parts, `encoder` turns pictures into spikes, `options` and `registry` are
read without torch; `timm` converts networks of that library.
"""
