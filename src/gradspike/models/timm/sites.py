"""Find the calls of a traced timm network that become spiking layers; refuse networks that cannot be converted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from timm.layers.norm import LayerNorm2d
from torch import fx, nn

from gradspike.models.timm import kinds
from gradspike.models.timm.trace import BATCH, free_name

_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
_CHANNELS_SECOND = (kinds.CONVOLUTION, kinds.BatchNorm, LayerNorm2d, nn.GroupNorm)


class NotConvertible(Exception):
    """The network cannot be converted to a spiking network; the message says why."""


@dataclass(frozen=True)
class Site:
    """A call of an activation that becomes a spiking layer.

    activation: the call; that of the norm if the norm contains the activation.
    norm: the call of the batch norm whose output goes only to this activation, or None.
    name: name of the spiking layer.
    channels, channels_last: number of channels, and whether they are the last dimension, not the second.
    """

    activation: fx.Node
    norm: fx.Node | None
    name: str
    channels: int
    channels_last: bool


def check_kind(network: nn.Module) -> None:
    """Raise NotConvertible for a network that is not convolutional, judged by its modules."""
    classes = [type(layer) for layer in network.modules()]
    recurrent = next((kind.__name__ for kind in classes if issubclass(kind, nn.RNNBase)), None)
    if recurrent:
        raise NotConvertible(f"it is recurrent over its tokens ({recurrent})")
    attention = next((kind.__name__ for kind in classes if "Attention" in kind.__name__), None)
    if attention:
        raise NotConvertible(
            f"it has attention ({attention}), which multiplies features by features; model=spikformer, sdt and "
            "qkformer are transformers with attention of spikes"
        )
    convolutions = sum(issubclass(kind, kinds.CONVOLUTION) for kind in classes)
    if convolutions < 2:
        raise NotConvertible(f"it is not a convolutional network (number of convolutions: {convolutions})")


def check_graph(module: fx.GraphModule) -> None:
    """Raise NotConvertible for products of features and for activations that tracing does not reach."""
    for node in module.graph.nodes:
        if node.target in kinds.PRODUCTS and len(node.all_input_nodes) > 1 and not kinds.in_global_context(node):
            where = kinds.owners(node)[-1][1].__name__ if kinds.owners(node) else "its own forward"
            raise NotConvertible(f"it multiplies features by features, as attention does ({where})")
        layer = kinds.called_module(module, node)
        if layer is None or isinstance(layer, kinds.ACTIVATIONS) or kinds.inner_activation(layer):
            continue
        if any(isinstance(child, kinds.ACTIVATIONS) for child in layer.modules()):
            raise NotConvertible(f"tracing cannot see the activations of its {type(layer).__name__} blocks")


def find_sites(module: fx.GraphModule, spiking_gates: bool) -> tuple[list[Site], list[str]]:
    """The calls that become spiking layers, in graph order, and the names of the activations that do not.

    Raises NotConvertible.
    """
    reaching = _reaching_output_without_gate(module)
    calls = Counter(node.target for node in module.graph.nodes)
    sites: list[Site] = []
    gates: list[str] = []
    taken = {name for name, _ in module.named_modules()}
    for node in module.graph.nodes:
        if not kinds.is_activation(module, node):
            continue
        if not spiking_gates and (node not in reaching or kinds.in_global_context(node)):
            gates.append(str(node.target) if node.op == "call_module" else node.name)
            continue
        norm = _own_norm(module, node, calls)
        name = _name(module, node, norm, calls, taken)
        taken.add(name)
        shape = node.meta["shape"]
        if len(shape) < 2 or shape[0] != BATCH:
            raise NotConvertible(f"'{name}' has shape {list(shape)} for {BATCH} images, so it mixes samples")
        last = len(shape) > 2 and norm is None and _channels_last(module, node)
        sites.append(Site(node, norm, name, shape[-1 if last else 1], last))
    if not sites:
        raise NotConvertible("it has no activation that could spike")
    return sites, gates


def _reaching_output_without_gate(module: fx.GraphModule) -> set[fx.Node]:
    """Nodes with a path to the output without a sigmoid, softmax or similar. All others compute a gate."""
    reaching: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        ends_here = node.meta["size"] or kinds.is_gate(module, node)
        if node.op == "output" or (not ends_here and any(user in reaching for user in node.users)):
            reaching.add(node)
    return reaching


def _own_norm(module: fx.GraphModule, activation: fx.Node, calls: Counter[object]) -> fx.Node | None:
    """The batch norm whose output goes only to this activation."""
    source = activation if kinds.batch_norm(module, activation) is not None else activation.args[0]
    if not isinstance(source, fx.Node) or (source is not activation and len(source.users) > 1):
        return None
    norm = kinds.batch_norm(module, source)
    if norm is None or calls[source.target] > 1 or norm.running_mean is None:
        return None
    inner = kinds.inner_activation(norm) is not None
    drops = not isinstance(getattr(norm, "drop", nn.Identity()), nn.Identity)
    return source if inner == (source is activation) and not drops else None


def _name(
    module: fx.GraphModule, activation: fx.Node, norm: fx.Node | None, calls: Counter[object], taken: set[str]
) -> str:
    """The batch norm's name, else the name of the activation's module, numbered if it is called several times."""
    if norm is not None:
        return str(norm.target)
    layer = kinds.called_module(module, activation)
    if layer is None:
        return free_name(taken, f"{kinds.owner(activation)}.{activation.name}".lstrip("."))
    if kinds.inner_activation(layer):
        return free_name(taken, f"{activation.target}.neuron")
    name = str(activation.target)
    return name if calls[name] == 1 else free_name(taken, name)


def _channels_last(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the channels of a node's output are its last dimension, judged by its nearest known ancestor."""
    while True:
        layer = kinds.called_module(module, node)
        if isinstance(layer, _CHANNELS_SECOND) or node.target in ("permute", torch.permute, "transpose"):
            return False
        if isinstance(layer, _CHANNELS_LAST):
            return True
        if not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]
