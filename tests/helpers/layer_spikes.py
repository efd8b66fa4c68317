"""The spikes of every layer of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradspike.spiking_norm import SpikingNorm


def spikes_of(model: nn.Module, inputs: Tensor, time_steps: int) -> dict[str, Tensor]:
    """What every spiking layer emits, [T, B, ...], and the logits as `output`."""
    folded: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: folded.update({name: out}))
        for name, layer in model.named_modules()
        if isinstance(layer, SpikingNorm)
    ]
    with torch.no_grad():
        logits = model(inputs)
    for hook in hooks:
        hook.remove()
    return {name: spikes.unflatten(0, (time_steps, -1)) for name, spikes in folded.items()} | {"output": logits}
