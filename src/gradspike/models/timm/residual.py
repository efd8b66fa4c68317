"""Residual blocks of a traced timm network, and the forms that they take as spiking blocks.

In timm's residual networks an activation follows the sum of a block. As a neuron there (`as_is`), it stands in the way
of every gradient. Two forms leave a way around: `sew`, neurons before the sum (Fang et al., NeurIPS 2021), and
`membrane`, a stream of currents with neurons first in the branch (Hu et al., TNNLS 2024). The graph of the ANN is
changed here, before its activations become neurons.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from gradspike.models.timm import kinds
from gradspike.models.timm.sites import NotConvertible
from gradspike.models.timm.trace import free_name

Form = Literal["sew", "membrane", "as_is"]
SUMS = (operator.add, torch.add, "add")
PRODUCTS = (operator.mul, torch.mul, "mul")


@dataclass(frozen=True)
class Block:
    """activation(sum(branch, shortcut)). The shortcut comes from `source` by a chain of calls without an activation,
    and so does every value of the branch, which has activations.

    source: an activation, possibly that of the block before.
    """

    activation: fx.Node
    sum: fx.Node
    branch: fx.Node
    shortcut: fx.Node
    source: fx.Node


def _summed(module: fx.GraphModule, activation: fx.Node) -> fx.Node | None:
    """The sum of two tensors that an activation receives without a norm between, or None."""
    node, layer = activation.args[0], kinds.called_module(module, activation)
    if layer is not None and kinds.inner_activation(layer) is not None:  # the norm comes first
        return None
    if not isinstance(node, fx.Node) or node.target not in SUMS or node.kwargs or len(node.all_input_nodes) != 2:
        return None
    return node


def find_blocks(module: fx.GraphModule, activations: Collection[fx.Node]) -> tuple[list[Block], list[str]]:
    """The residual blocks whose sum is followed by one of these activations, in graph order, and the classes of timm
    with such a sum that is no residual block's.
    """
    blocks, others = [], []
    for activation in activations:
        node = _summed(module, activation)
        if node is None:
            continue
        block = next(_blocks(module, activation, node, activations), None)
        if block is not None:
            blocks.append(block)
        else:
            others.append(kinds.owners(node)[-1][1].__name__ if kinds.owners(node) else type(module).__name__)
    return blocks, sorted(set(others))


def _blocks(
    module: fx.GraphModule, activation: fx.Node, node: fx.Node, activations: Collection[fx.Node]
) -> Iterator[Block]:
    first, second = node.all_input_nodes
    for branch, shortcut in ((first, second), (second, first)):
        source = _source(shortcut, activations)
        alone = list(node.users) == [activation]
        if source is not None and alone and _is_branch(branch, source, activations) and _last_norm(module, branch):
            yield Block(activation, node, branch, shortcut, source)


def _source(shortcut: fx.Node, activations: Collection[fx.Node]) -> fx.Node | None:
    """The activation that a shortcut comes from by a chain of calls, or None."""
    node: fx.Node | None = shortcut
    while node is not None and node not in activations:
        node = _input(node)
    return node


def _input(node: fx.Node) -> fx.Node | None:
    """The only tensor that a call receives, apart from weights, or None."""
    tensors = [one for one in node.all_input_nodes if one.op != "get_attr" and not one.meta["size"]]
    return tensors[0] if len(tensors) == 1 else None


def _chain(block: Block) -> list[fx.Node]:
    """The calls of a shortcut, from the sum back to its source."""
    chain: list[fx.Node] = []
    node: fx.Node | None = block.shortcut
    while node is not None and node is not block.source:
        chain.append(node)
        node = _input(node)
    return chain


def skipping_shortcuts(module: fx.GraphModule, blocks: Sequence[Block]) -> list[str]:
    """Names of the convolutions in shortcuts that read only some of the positions, such as 1x1 with stride 2.

    The stream then carries these positions alone to the end of the network.
    """
    calls = ((node, kinds.called_module(module, node)) for block in blocks for node in _chain(block))
    return [
        str(node.target)
        for node, layer in calls
        if isinstance(layer, nn.Conv2d)
        and any(step > kernel for step, kernel in zip(layer.stride, layer.kernel_size, strict=True))
    ]


def _is_branch(end: fx.Node, source: fx.Node, activations: Collection[fx.Node]) -> bool:
    """Whether everything that a node is computed from comes from `source`, some of it through an activation."""
    waiting, seen, active = [end], {source}, False
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if node.op == "placeholder":
            return False
        seen.add(node)
        active = active or node in activations
        waiting += node.all_input_nodes
    return active


def _last_norm(module: fx.GraphModule, node: fx.Node) -> str | None:
    """The name of the norm that a node is, alone or times gates, with drop path or not; None if it is none."""
    layer = kinds.called_module(module, node)
    if isinstance(layer, kinds.STOCHASTIC):
        return _last_norm(module, node.all_input_nodes[0])
    if node.target in PRODUCTS:
        return next((name for factor in node.all_input_nodes if (name := _last_norm(module, factor))), None)
    is_norm = isinstance(layer, (kinds.BatchNorm, *kinds.OTHER_NORMS)) and kinds.inner_activation(layer) is None
    return str(node.target) if is_norm else None


def branch_norms(module: fx.GraphModule, blocks: Sequence[Block]) -> list[str]:
    """Names of the norms at the ends of the branches."""
    return [name for block in blocks if (name := _last_norm(module, block.branch))]


def shortcut_norms(module: fx.GraphModule, blocks: Sequence[Block]) -> list[str]:
    """Names of the batch norms in shortcuts."""
    calls = ((node, kinds.called_module(module, node)) for block in blocks for node in _chain(block))
    return [str(node.target) for node, layer in calls if isinstance(layer, kinds.BatchNorm)]


def check_form(form: Form, blocks: Collection[Block], others: Collection[str]) -> None:
    """Raise NotConvertible if the network cannot take a form."""
    if form != "as_is" and (others or not blocks):
        where = f"the sums in {', '.join(others)} belong to no residual block" if others else "no block is of this kind"
        raise NotConvertible(
            f"model.residual={form} needs networks in which an activation follows the sum of each residual block, and "
            f"{where}; choose model.residual=as_is"
        )


def reshape(module: fx.GraphModule, blocks: Sequence[Block], form: Form) -> None:
    """Give the blocks of an ANN's graph a form, in place. Raises NotConvertible."""
    sums = {block.activation: block.sum for block in blocks}
    for block in reversed(blocks):  # the source of each is then still an activation
        if form == "sew":
            for operand in (block.branch, block.shortcut):
                _activate(module, block, operand)
            block.activation.replace_all_uses_with(block.sum)
            module.graph.erase_node(block.activation)
        elif form == "membrane" and block.source in sums:
            _read(block, sums[block.source])
    module.recompile()


def _activate(module: fx.GraphModule, block: Block, operand: fx.Node) -> None:
    """Place an activation behind what is summed, before any drop path; not behind an identity or pooling of spikes."""
    if operand is block.shortcut and not any(_has_weights(module, node) for node in _chain(block)):
        return
    user, node = block.sum, operand
    while isinstance(kinds.called_module(module, node), kinds.STOCHASTIC):
        user, node = node, node.all_input_nodes[0]
    taken = {name for name, _ in module.named_modules()}
    name = free_name(taken, f"{kinds.owner(block.sum)}.neuron".lstrip("."))
    module.add_submodule(name, nn.ReLU())
    with module.graph.inserting_after(node):
        active = module.graph.call_module(name, (node,))
    active.meta = dict(node.meta)
    user.replace_input_with(node, active)


def _has_weights(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = kinds.called_module(module, node)
    return layer is not None and any(True for _ in layer.parameters())


def _read(block: Block, stream: fx.Node) -> None:
    """Let the shortcut of a block read the stream, not the neurons behind it."""
    chain = _chain(block)
    shared = next((node for node in chain if len(node.users) > 1), None)
    if shared is not None:
        raise NotConvertible(f"model.residual=membrane: its branch and its shortcut share {shared.target}")
    (chain[-1] if chain else block.sum).replace_input_with(block.source, stream)
