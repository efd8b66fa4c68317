"""Convert a traced timm network to a spiking network."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from gradspike.models.timm import kinds
from gradspike.models.timm.residual import (
    Form,
    branch_norms,
    check_form,
    find_blocks,
    reshape,
    shortcut_norms,
    skipping_shortcuts,
)
from gradspike.models.timm.sites import Site, check_graph, find_sites
from gradspike.models.timm.time import begin_time
from gradspike.spiking_norm import LayerContext, SpikingNorm

DEFAULT_FORM: Form = "membrane"
RELAY = 0.75  # of V_th


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion: names of modules, by what became of them.

    Attributes:
        pairs: batch norm and activation, now one SpikingNorm.
        neurons: activations without a batch norm of their own, now a spiking layer without norm (gamma_mean = 1).
        gates: activations that stay real-valued.
        norms: unchanged batch norms.
        other_norms: unchanged norms of other kinds.
        still: spiking layers that receive the current of a still image, computed once.
        woken: pairs with an initial gain of 1 instead of timm's 0.
        opened: other norms with an initial gain of alpha * V_th / sqrt(2) instead of timm's 0.
        scaled: other norms whose currents enter a stream of currents, with initial gains in units of V_th.
        relays: pairs after max-pooled spikes, with an initial mean current of 0.75 V_th.
        form: of the residual blocks.
        blocks: number of residual blocks with an activation after their sum.
        others: classes of timm with such a sum that belongs to no residual block.
        skipping: convolutions in shortcuts that read only some of the positions.
    """

    pairs: tuple[str, ...]
    neurons: tuple[str, ...]
    gates: tuple[str, ...]
    norms: tuple[str, ...]
    other_norms: tuple[str, ...]
    still: tuple[str, ...]
    woken: tuple[str, ...]
    opened: tuple[str, ...]
    scaled: tuple[str, ...]
    relays: tuple[str, ...]
    form: Form
    blocks: int
    others: tuple[str, ...]
    skipping: tuple[str, ...]


def convert(
    module: fx.GraphModule, context: LayerContext, spiking_gates: bool, trained: bool, residual: Form | Literal["auto"]
) -> Conversion:
    """Rewrite the graph in place. The new forward takes (x, static): images [B, C, H, W] and True, or frames
    [T*B, C, H, W] and False. It returns [T*B, K].

    trained: the weights are not random, so gains and biases stay unchanged. residual: the form of residual blocks;
    auto: the default one where the network can take it and is not `trained`, else as_is. Raises NotConvertible.
    """
    check_graph(module)
    sites, gates = find_sites(module, spiking_gates)
    blocks, others = find_blocks(module, [site.activation for site in sites])
    form = residual if residual != "auto" else "as_is" if trained or others or not blocks else DEFAULT_FORM
    check_form(form, blocks, others)
    skipping = skipping_shortcuts(module, blocks)
    branches, shortcuts = branch_norms(module, blocks), shortcut_norms(module, blocks)
    if form != "as_is":
        reshape(module, blocks, form)
        sites, gates = find_sites(module, spiking_gates)
    paired = {site.norm for site in sites}
    layers = {node: kinds.called_module(module, node) for node in module.graph.nodes if node not in paired}
    norms = [str(node.target) for node, layer in layers.items() if isinstance(layer, kinds.BatchNorm)]
    other_norms = [str(node.target) for node, layer in layers.items() if isinstance(layer, kinds.OTHER_NORMS)]
    calls: dict[fx.Node, str] = {}
    woken, relays = [], []
    for site in sites:
        call = _place(module, site, context)
        layer = module.get_submodule(site.name)
        if isinstance(layer, SpikingNorm) and layer.norm is not None and not trained:
            if not layer.norm.weight.any():
                nn.init.constant_(layer.norm.weight, layer.norm.initial_gain)
                woken.append(site.name)
            if _takes_pooled_spikes(module, call, calls.keys()):
                nn.init.constant_(layer.norm.bias, RELAY * layer.v_threshold)
                relays.append(site.name)
        calls[call] = site.name
    scaled = [] if trained or form != "membrane" else _scale_stream(module, branches, shortcuts, context)
    still = begin_time(module, calls.keys(), context.time_steps)
    module.graph.lint()
    module.delete_all_unused_submodules()
    module.recompile()
    return Conversion(
        pairs=tuple(site.name for site in sites if site.norm is not None),
        neurons=tuple(site.name for site in sites if site.norm is None),
        gates=tuple(gates),
        norms=tuple(norms),
        other_norms=tuple(other_norms),
        still=tuple(calls[call] for call in still),
        woken=tuple(woken),
        opened=() if trained else tuple(_open_branches(module, [*norms, *other_norms], context)),
        scaled=tuple(scaled),
        relays=tuple(relays),
        form=form,
        blocks=len(blocks),
        others=tuple(others),
        skipping=tuple(skipping),
    )


def _place(module: fx.GraphModule, site: Site, context: LayerContext) -> fx.Node:
    """Replace the call of the activation by one of the spiking layer. Returns the new call."""
    own = kinds.called_module(module, site.activation)
    stays = site.norm is None and own is not None and kinds.inner_activation(own) is not None
    if site.norm is not None:
        norm = kinds.batch_norm(module, site.norm)
        layer = context.layer(site.channels)
        assert norm is not None
        assert isinstance(layer, SpikingNorm)
        take_over(layer, norm)
        module.add_submodule(site.name, layer)
    else:
        module.add_submodule(site.name, context.neuron_layer(site.channels))
    current = site.activation if stays else (site.norm or site.activation).args[0]
    assert isinstance(current, fx.Node)
    graph = module.graph
    with graph.inserting_after(site.activation):
        moved = graph.call_method("movedim", (current, -1, 1)) if site.channels_last else current
    with graph.inserting_after(site.activation if moved is current else moved):
        call = spikes = graph.call_module(site.name, (moved,))
    if site.channels_last:
        with graph.inserting_after(call):
            spikes = graph.call_method("movedim", (call, 1, -1))
    site.activation.replace_all_uses_with(spikes, delete_user_cb=lambda user: user not in (moved, call))
    if stays:
        setattr(own, "act", nn.Identity())  # noqa: B010  (mypy knows `own` only as a Module)
        return call
    graph.erase_node(site.activation)
    if site.norm is not None and site.norm is not site.activation:
        graph.erase_node(site.norm)
    return call


@torch.no_grad()
def take_over(layer: SpikingNorm, norm: kinds.BatchNorm) -> None:
    """Copy gain, bias, statistics and eps of a batch norm to a spiking layer. In either parametrisation, its current is
    alpha * V_th times the output of the batch norm.
    """
    own = layer.norm
    assert own is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    own.eps = norm.eps
    if norm.affine:
        own.weight.copy_(norm.weight * own.initial_gain)
        own.bias.copy_(norm.bias * own.scale * own.initial_gain)
    own.running_mean.copy_(norm.running_mean)
    own.running_var.copy_(norm.running_var)


@torch.no_grad()
def _scale_stream(
    module: fx.GraphModule, branches: list[str], shortcuts: list[str], context: LayerContext
) -> list[str]:
    """Start the currents of a stream near the threshold. Returns the names of the norms.

    Norms of shortcuts give alpha * V_th. The last norms of the branches give 1 / sqrt(blocks) of that, whether or not
    timm's gain is 0: all branches together then add no more than one shortcut, so the potentials keep their spread, and
    gradients do not multiply from block to block (De, Smith, NeurIPS 2020).
    """
    whole, share = context.channel_norm(1), context.channel_norm(1, branches=len(branches))
    likes = dict.fromkeys(shortcuts, whole) | dict.fromkeys(branches, share)
    gains = {name: module.get_submodule(name).weight for name in likes}
    gains = {name: gain for name, gain in gains.items() if isinstance(gain, Tensor)}  # some norms have no gain
    for name, gain in gains.items():
        assert isinstance(gain, Tensor)
        if not gain.any():
            gain.fill_(1)
        gain.mul_(likes[name].scale * likes[name].initial_gain)
    return list(gains)


@torch.no_grad()
def _open_branches(module: fx.GraphModule, norms: list[str], context: LayerContext) -> list[str]:
    """Give each norm with a gain of 0 that of one of two summed currents, as in our basic block. Returns their names.

    With a gain of 0, the neuron after the sum receives only its shortcut. If that consists of spikes, the potential has
    two values, and both may be outside the surrogate's window (psg, ds_atgo): no gradient passes or reaches the gain.
    """
    like = context.channel_norm(1, branches=2)
    gains = {name: module.get_submodule(name).weight for name in norms}
    closed = {name: gain for name, gain in gains.items() if isinstance(gain, Tensor) and not gain.any()}
    for gain in closed.values():
        gain.fill_(like.scale * like.initial_gain)
    return list(closed)


def _takes_pooled_spikes(module: fx.GraphModule, call: fx.Node, spiking: Set[fx.Node]) -> bool:
    """Whether the input of a norm consists of max-pooled spikes.

    After pooling, a share p > 1/2 of them is 1. Their normalised value sqrt((1 - p) / p) is then below V_th, so neither
    this layer nor any later one fires.
    """
    source, pooled = call.args[0], False
    assert isinstance(source, fx.Node)
    while True:
        is_pool = isinstance(kinds.called_module(module, source), nn.MaxPool2d)
        lone = source.target is torch.cat and len(source.all_input_nodes) == 1  # the first layer of a DenseNet
        if not is_pool and not lone:
            break
        source, pooled = source.all_input_nodes[0], pooled or is_pool
    return pooled and source in spiking
