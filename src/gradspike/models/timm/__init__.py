"""Convolutional networks of timm as spiking networks.

`network` is the backbone. `trace` makes a graph of timm's code, `kinds` and `sites` find the activations to replace,
`convert` replaces them, `time` adds the time axis, `weights` loads a local file.
"""
