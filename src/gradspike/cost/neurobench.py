"""The metrics of NeuroBench (Yik et al., Nature Communications 2025), as the package neurobench 2.3 defines them.

    footprint            bytes of all parameters and buffers
    connection_sparsity  share of zeros among the weights of linear layers and convolutions, to 4 decimals
    activation_sparsity  share of zeros among the outputs of neurons and ReLU and sigmoid layers, all steps and samples
    dense_synops         synaptic operations, also those with a zero
    effective_macs       those with neither a zero weight nor a zero input, in layers with other inputs than -1, 0, 1
    effective_acs        the same, in layers whose inputs are -1, 0 or 1
    membrane_updates     potentials that differ from those of the step before, after the reset; all at the first step

Operations and updates are per sample, for all time steps. A bias and the padding of a convolution are no operations. A
layer that is computed once for all steps counts once. Whether a layer accumulates is decided from all samples;
neurobench decides for each call, so for each batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradspike.cost.neurobench_metrics import ACS, ACTIVATIONS, CONNECTIONS, DENSE, FOOTPRINT, MACS, UPDATES
from gradspike.cost.synapses import CHUNK
from gradspike.engine import steps
from gradspike.engine.base import EngineOptions, layer_rules, neuron_values, over_channels
from gradspike.models.vgg9 import VotingHead
from gradspike.spiking_norm import ActivationLayer, LayerTrace, SpikingNorm

_CONNECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTIVATIONS = (ActivationLayer, nn.ReLU, nn.Sigmoid)


@torch.no_grad()
def measure_neurobench(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """All metrics of a backbone, by name.

    Args:
        model: it runs in evaluation mode, and its mode is restored.
        inputs: samples, [B, C, H, W] or [T, B, C, H, W].
    """
    was_training, axis = model.training, inputs.ndim - 4
    model.eval()
    counts = _Counts(model)
    try:
        for chunk in torch.split(inputs, CHUNK, axis):
            model(chunk)
    finally:
        counts.close()
        model.train(was_training)
    samples = inputs.shape[axis]
    return {**_static(model), **counts.per_sample(samples)}


def _static(model: nn.Module) -> dict[str, float]:
    weights = [layer.weight for layer in model.modules() if isinstance(layer, _CONNECTIONS)]
    total, zeros = sum(one.numel() for one in weights), sum(int((one == 0).sum()) for one in weights)
    stored = [*model.parameters(), *model.buffers()]
    return {
        FOOTPRINT.name: sum(one.numel() * one.element_size() for one in stored),
        CONNECTIONS.name: round(zeros / total, 4) if total else 0.0,
    }


class _Counts:
    """Hooks that count in every pass until `close`."""

    def __init__(self, model: nn.Module) -> None:
        self.dense = self.updates = 0.0
        self.effective: dict[nn.Module, float] = {}
        self.spiking: dict[nn.Module, bool] = {}
        self.zeros = self.activations = 0
        self._counting = False
        self._dense: dict[tuple[nn.Module, torch.Size], float] = {}  # of one input of that shape
        self._handles = []
        for layer in model.modules():
            if isinstance(layer, _CONNECTIONS):
                self._handles.append(layer.register_forward_pre_hook(self._connection))
            elif isinstance(layer, _ACTIVATIONS):
                self._handles.append(layer.register_forward_hook(self._activation, with_kwargs=True))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def per_sample(self, samples: int) -> dict[str, float]:
        """The metrics that depend on inputs."""
        accumulates, multiplies = (
            sum(count for layer, count in self.effective.items() if self.spiking[layer] is spiking)
            for spiking in (True, False)
        )
        return {
            ACTIVATIONS.name: self.zeros / self.activations if self.activations else 0.0,
            DENSE.name: self.dense / samples,
            MACS.name: multiplies / samples,
            ACS.name: accumulates / samples,
            UPDATES.name: self.updates / samples,
        }

    def _connection(self, layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if self._counting:  # the layer runs to count its own operations
            return
        x = arguments[0].detach()
        x = x if x.ndim >= layer.get_parameter("weight").ndim else x.unsqueeze(0)
        self._counting = True
        try:
            self.effective[layer] = self.effective.get(layer, 0.0) + _operations(layer, x != 0, every_weight=False)
            place = layer, x.shape[1:]
            if place not in self._dense:
                self._dense[place] = _operations(layer, torch.ones_like(x[:1]), every_weight=True)
            self.dense += len(x) * self._dense[place]
        finally:
            self._counting = False
        self.spiking[layer] = self.spiking.get(layer, True) and bool(((x == 0) | (x.abs() == 1)).all())

    def _activation(self, layer: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], y: Tensor) -> None:
        self.zeros += int((y == 0).sum())
        self.activations += y.numel()
        if isinstance(layer, SpikingNorm):
            self._counting = True  # a feedback runs again, and has been counted
            try:
                trace = layer.inspect(*arguments, **named)
            finally:
                self._counting = False
            self.updates += _updates(layer, trace)


def _operations(layer: nn.Module, x: Tensor, *, every_weight: bool) -> float:
    """Products of nonzero inputs and weights, for x [B, ...] of zeros and ones; with `every_weight`, of zero ones too.

    Sums over the batch and over a group's output channels commute with the layer, so it computes one sample and one
    channel per group.
    """
    weight = layer.get_parameter("weight")
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # TF32 would round counts above 2,048
    used = (torch.ones_like(weight) if every_weight else weight != 0).to(exact)
    groups = int(getattr(layer, "groups", 1))
    parameters = {"weight": torch.unflatten(used, 0, (groups, -1)).sum(1)}
    if getattr(layer, "bias", None) is not None:
        parameters["bias"] = torch.zeros(groups, dtype=exact, device=weight.device)
    votes = nn.Linear(1, 1) if isinstance(layer, VotingHead) else layer  # before their mean, which is not counted
    with torch.autocast(x.device.type, enabled=False):
        products: Tensor = functional_call(votes, parameters, (x.sum(0, keepdim=True, dtype=exact),))
    return float(products.sum())


def _updates(layer: SpikingNorm, trace: LayerTrace) -> int:
    """Potentials that a layer's steps change, of all samples.

    With a norm of the potential, the normalised one is compared. A neuron without state (PSN) computes all potentials.
    """
    u = trace.u
    rules = layer_rules(layer.neuron, layer.method, EngineOptions(layer.surrogate))
    values, spread = neuron_values(layer.neuron, u.dtype), partial(over_channels, step=u[0])
    state = steps.start(u[0], steps.pick(values, 0, rules), rules, spread)
    if not state:
        return u.numel()
    changed, before = u[0].numel(), None
    for t, potential in enumerate(u):
        picked = steps.pick(values, t, rules)
        _, state = steps.fire(
            potential, state, picked, trace.thresholds[t], trace.widths[t], rules, spread, gradient=False
        )
        if before is not None:
            changed += int((state[0] != before).sum())
        before = state[0]
    return changed
