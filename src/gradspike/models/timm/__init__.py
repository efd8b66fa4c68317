"""Convolutional networks of timm as spiking networks.

`network` is the backbone. `trace` turns timm's code into a graph, `kinds` and `sites` find the activations to replace,
`convert` replaces them, `time` adds the time axis, and `weights` loads a local file.
"""
