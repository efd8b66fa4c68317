"""The NIR graph of a network in evaluation, for one time step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from gradspike.errors import ConfigError
from gradspike.models.blocks import PickedConv1x1
from gradspike.models.encoder import encoder_of
from gradspike.models.output_neuron import LtmdOutput
from gradspike.models.vgg9 import VotingHead
from gradspike.norms.base import ChannelNorm
from gradspike.spiking_norm import ActivationLayer, NormReLU, SpikingNorm
from gradspike.tools.export.flow import ADD, FLATTEN, INPUT, Call, Flow, record_flow
from gradspike.tools.export.folding import Weights, can_fold, folded, weights_of
from gradspike.tools.export.neurons import require_equivalent, spiking_nodes

OUTPUT = "output"


def nir_graph(model: nn.Module, x: Tensor, metadata: dict[str, Any]) -> nir.NIRGraph:
    """The graph of a network in evaluation on a CPU.

    x [1, C, H, W] is any input of one time step. Numbers have the dtype of x, which must be the network's. Norms are
    folded into the weights before them. Raises ConfigError, naming the layer, for what NIR cannot describe.
    """
    _require_describable(model)
    builder = _Builder(record_flow(model, x), x)
    return nir.NIRGraph(builder.nodes, builder.edges, metadata)


def _require_describable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if (encoder := encoder_of(module)) is not None:
            raise ConfigError(f"model.encoder={encoder}: encodes an image over all time steps; NIR describes one step.")
        if isinstance(module, LtmdOutput):
            raise ConfigError("model.readout=ltmd: the output neuron of LTMD passes on potentials; NIR has none such.")
        if isinstance(module, NormReLU):
            raise ConfigError(f"layer '{name}': ReLU has no equivalent in NIR, which describes spiking networks.")
        if isinstance(module, SpikingNorm):
            require_equivalent(name, module)


class _Builder:
    """Adds the nodes of one call after the other.

    `_sources` has the nodes whose sum is a value: NIR adds what arrives at a node. `_waiting` are layers whose norm has
    not been seen yet.
    """

    def __init__(self, flow: Flow, x: Tensor) -> None:
        self.nodes: dict[str, Any] = {INPUT: nir.Input({INPUT: np.array(x.shape[1:])})}
        self.edges: list[tuple[str, str]] = []
        self._x = x
        self._sources: dict[str, list[str]] = {INPUT: [INPUT]}
        self._shapes: dict[str, tuple[int, ...]] = {INPUT: tuple(x.shape[1:])}
        self._waiting: dict[str, Call] = {}
        self._readers = Counter(name for call in flow.calls for name in call.inputs)
        self._readers[flow.output] += 1
        for call in flow.calls:
            self._shapes[call.name] = call.shape
            self._add(call)
        self._emit_waiting(flow.output)
        self.nodes[OUTPUT] = nir.Output({OUTPUT: np.array(self._shapes[flow.output])})
        self._connect(flow.output, OUTPUT)

    def _add(self, call: Call) -> None:
        made_by = call.made_by
        if isinstance(made_by, ActivationLayer | ChannelNorm):
            self._add_activation(call, made_by)
        elif isinstance(made_by, nn.Conv2d | nn.Linear):
            _require_plain(call.name, made_by)
            self._waiting[call.name] = call
        else:
            for name in call.inputs:
                self._emit_waiting(name)
            if made_by == ADD:
                self._sources[call.name] = [source for name in call.inputs for source in self._sources[name]]
            else:
                self._node(call, self._other(call))

    def _add_activation(self, call: Call, layer: ActivationLayer | ChannelNorm) -> None:
        norm = layer if isinstance(layer, ChannelNorm) else layer.norm
        (given,) = call.inputs
        if norm is None:
            self._emit_waiting(given)
        else:
            if given not in self._waiting or self._readers[given] > 1 or not can_fold(norm):
                raise ConfigError(
                    f"layer '{call.name}': its norm cannot be folded, because it is no batch norm right after a "
                    "convolution or linear layer of its own."
                )
            self._emit_waiting(given, norm)
        if isinstance(layer, SpikingNorm):
            nodes, edges, last = spiking_nodes(call.name, layer, call.shape, self._x)
            self.nodes |= nodes
            self.edges += edges
            self._connect(given, call.name)
            if layer.feedback is not None:
                back = f"{call.name}.feedback"
                self.nodes[back] = _at_each_position(layer.feedback, call.shape)
                self.edges += [(last, back), (back, call.name)]
            self._sources[call.name] = [last]
        else:
            self._sources[call.name] = self._sources[given]

    def _emit_waiting(self, name: str, norm: ChannelNorm | None = None) -> None:
        """Add the convolution or linear layer that gives this value, if it still waits for its norm."""
        call = self._waiting.pop(name, None)
        if call is None:
            return
        layer = call.made_by
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        weights = weights_of(layer) if norm is None else folded(weights_of(layer), norm)
        (given,) = call.inputs
        self._emit_waiting(given)
        self._node(call, _linear(layer, weights, self._shapes[given]))

    def _node(self, call: Call, node: Any) -> None:
        self.nodes[call.name] = node
        for given in call.inputs:
            self._connect(given, call.name)
        self._sources[call.name] = [call.name]

    def _connect(self, value: str, node: str) -> None:
        sources = self._sources[value]
        if len(set(sources)) < len(sources):
            raise ConfigError(f"layer '{node}': takes the same value twice, for which NIR has no edge.")
        self.edges += [(source, node) for source in sources]

    def _other(self, call: Call) -> Any:
        """The node of a call without weights."""
        made_by, shape = call.made_by, self._shapes[call.inputs[0]]
        if made_by == FLATTEN:
            return nir.Flatten({INPUT: np.array(shape)}, start_dim=0, end_dim=-1)
        if isinstance(made_by, nn.AvgPool2d):
            if made_by.ceil_mode or made_by.divisor_override or not made_by.count_include_pad:
                raise ConfigError(f"layer '{call.name}': NIR's average pooling has no such options as {made_by}.")
            return _average(made_by.kernel_size, made_by.stride, made_by.padding)
        if isinstance(made_by, nn.AdaptiveAvgPool2d):
            kernel = [size // kept for size, kept in zip(shape[1:], call.shape[1:], strict=True)]
            if all(size % kept == 0 for size, kept in zip(shape[1:], call.shape[1:], strict=True)):
                return _average(kernel, kernel, 0)
            rows, columns = (f"{given} to {kept}" for given, kept in zip(shape[1:], call.shape[1:], strict=True))
            raise ConfigError(
                f"layer '{call.name}': averages {rows} rows and {columns} columns; NIR's pooling has no such window."
            )
        if isinstance(made_by, str):
            given = " and ".join(f"'{name}'" for name in call.inputs)
            raise ConfigError(f"operation {made_by} on the output of {given}: has no equivalent in NIR.")
        kind = type(made_by).__name__
        hint = " Average pooling has one (model.pool=avg, if the backbone has it)." if "MaxPool" in kind else ""
        raise ConfigError(f"layer '{call.name}': {kind} has no equivalent in NIR.{hint}")


def _require_plain(name: str, layer: nn.Conv2d | nn.Linear) -> None:
    """Raise ConfigError for a subclass that computes something else, or a padding other than zeros."""
    forwards = (nn.Conv2d.forward, nn.Linear.forward, PickedConv1x1.forward, VotingHead.forward)
    zeros = isinstance(layer, nn.Linear) or layer.padding_mode == "zeros"
    if type(layer).forward not in forwards or not zeros:
        raise ConfigError(f"layer '{name}': {layer} has no equivalent in NIR.")


@torch.no_grad()
def _linear(layer: nn.Conv2d | nn.Linear, weights: Weights, shape: tuple[int, ...]) -> Any:
    weight, bias = (value.cpu().numpy().copy() for value in weights)
    if isinstance(layer, nn.Conv2d):
        padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
        return nir.Conv2d(shape[1:], weight, layer.stride, padding, layer.dilation, layer.groups, bias)
    return nir.Affine(weight, bias)


@torch.no_grad()
def _at_each_position(layer: nn.Linear, shape: tuple[int, ...]) -> Any:
    """The node of a layer without bias that maps the channels of each position; shape: [C] or [C, H, W]."""
    weight = layer.weight.cpu().numpy().copy()
    if len(shape) == 1:
        return nir.Linear(weight)
    return nir.Conv2d(shape[1:], weight[:, :, None, None], 1, 0, 1, 1, np.zeros(len(weight), weight.dtype))


def _average(kernel: Any, stride: Any, padding: Any) -> Any:
    return nir.AvgPool2d(
        *(np.array([side, side] if isinstance(side, int) else side) for side in (kernel, stride, padding))
    )
