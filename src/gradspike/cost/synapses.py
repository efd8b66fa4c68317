"""Inputs of a network's synapses: how many are nonzero in each layer, and whether they are integers.

For a spike, a weight is only added: an accumulate (AC). For any other input, it is multiplied and added: a
multiply-accumulate (MAC). Which one a layer needs is measured on its inputs, not assumed: the first layer after an
image, or a layer after average pooling, has real inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradspike.cost.counting import OUTSIDE, count_flops
from gradspike.models.attention import SpikeProduct

CHUNK = 16  # samples per pass
DIGITS = 6

_MULTIPLIES = (nn.modules.conv._ConvNd, nn.Linear, SpikeProduct)


@dataclass
class _Inputs:
    """Sums over the elements of a layer's inputs, [passes][steps]. A feedback is called once for each step."""

    whole: bool = True
    elements: list[list[float]] = field(default_factory=list)
    nonzero: list[list[float]] = field(default_factory=list)
    magnitude: list[list[float]] = field(default_factory=list)

    def add(self, x: Tensor, samples: int, number: int) -> None:
        """Count inputs [steps * samples, ...] of the pass `number`, from 0."""
        steps = torch.unflatten(x.detach(), 0, (-1, samples)).flatten(1)
        self.whole = self.whole and bool((steps == steps.round()).all())
        counts = (steps != 0).sum(1, dtype=torch.float64), steps.abs().sum(1, dtype=torch.float64)
        for sums, added in ((self.nonzero, counts[0]), (self.magnitude, counts[1])):
            sums.extend([] for _ in range(number + 1 - len(sums)))
            sums[number] += added.tolist()
        self.elements.extend([] for _ in range(number + 1 - len(self.elements)))
        self.elements[number] += [float(steps.shape[1])] * len(steps)

    def mean(self, sums: list[list[float]]) -> list[float]:
        """Mean over all elements, per time step."""
        total, elements = (torch.tensor(rows, dtype=torch.float64).sum(0) for rows in (sums, self.elements))
        return [float(f"{value:.{DIGITS}g}") for value in (total / elements).tolist()]


@torch.no_grad()
def measure_synapses(model: nn.Module, inputs: Tensor) -> list[dict[str, Any]]:
    """One record for each layer with products, in the order of computation.

    Args:
        model: a backbone; it runs in evaluation mode, and its mode is restored.
        inputs: samples, [B, C, H, W] or [T, B, C, H, W].

    `macs` is for one sample and all time steps, dense. `steps` is how often the layer is computed for a sample. `input`
    is `whole` (spikes and spike counts) or `real`. `nonzero` is the share of nonzero inputs and `magnitude` the mean of
    their absolute value, both per step. Of a product of
    two activations, spiking attention (`SpikeProduct`) counts the spikes of its first factor; others have no `nonzero`.
    """
    was_training = model.training
    model.eval()
    batch_axis = inputs.ndim - 4
    flops = count_flops(model, inputs.narrow(batch_axis, 0, 1))
    found: dict[str, _Inputs] = {}
    handles = []
    samples = number = 0

    def count(name: str, _layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.setdefault(name, _Inputs()).add(arguments[0], samples, number)

    for name, layer in model.named_modules():
        if isinstance(layer, _MULTIPLIES):
            handles.append(layer.register_forward_pre_hook(partial(count, name)))
    try:
        for number, chunk in enumerate(torch.split(inputs, CHUNK, batch_axis)):  # noqa: B007  # for `count`
            samples = chunk.shape[batch_axis]
            model(chunk)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    layers: list[dict[str, Any]] = []
    for name, record in flops.records.items():
        if not record.flops:
            continue
        kind = type(model if name == OUTSIDE else model.get_submodule(name)).__name__
        layer_record: dict[str, Any] = {"name": name, "kind": kind, "macs": record.flops // 2}
        if name in found:
            seen = found[name]
            nonzero = seen.mean(seen.nonzero)
            layer_record |= {"steps": len(nonzero), "input": "whole" if seen.whole else "real"}
            layer_record |= {"nonzero": nonzero, "magnitude": seen.mean(seen.magnitude)}
        else:
            layer_record |= {"steps": 1, "input": "real"}
        layers.append(layer_record)
    return layers
