"""Replaces thresholds that differ between time steps by their mean over the steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.spiking_norm import SpikingNorm
from gradspike.tools.export.neurons import thresholds_of


def use_mean_thresholds(model: nn.Module) -> int:
    """Let each spiking layer fire at the mean over the steps of its thresholds in evaluation.

    Returns in how many layers they differed. Raises ConfigError if a method measures them on each batch.
    """
    changed = 0
    for name, layer in model.named_modules():
        if isinstance(layer, SpikingNorm) and layer.neuron.threshold is None:
            thresholds = thresholds_of(name, layer, next(iter(layer.neuron.values().values())))
            if not torch.equal(thresholds, thresholds[:1].expand_as(thresholds)):
                layer.method = _Constant(layer.method, thresholds.mean(0))
                changed += 1
    return changed


class _Constant(Method):
    """A method in evaluation, with one threshold for all steps."""

    def __init__(self, method: Method, threshold: Tensor) -> None:
        super().__init__(method.config, method.time_steps, method.channels)
        self.layer_name, self.space = method.layer_name, method.space
        self.scales_spikes, self.per_neuron = method.scales_spikes, method.per_neuron
        self.register_buffer("threshold", threshold)

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        thresholds = self.get_buffer("threshold").to(facts.dtype)
        return Plan(thresholds.expand(facts.time_steps, *thresholds.shape), facts.full(1.0))
