"""Where time begins in a converted network: for still images, everything before is computed once."""

from __future__ import annotations

from collections.abc import Set

from torch import Tensor, fx, nn
from typing_extensions import override

from gradspike.models.timm import kinds
from gradspike.models.timm.trace import free_name
from gradspike.spiking_norm import repeat_in_time


class RepeatInTime(nn.Module):
    """[B, ...] -> [T*B, ...] for a still input; any other input is returned unchanged.

    A module, not a function, so that graphs can be pickled.
    """

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps

    def forward(self, x: Tensor, static: bool) -> Tensor:
        """See the class."""
        return repeat_in_time(x, self.time_steps) if static else x

    @override
    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}"


def begin_time(module: fx.GraphModule, spiking: Set[fx.Node], time_steps: int) -> list[fx.Node]:
    """Run the still part of the network once, on [B, ...]. Its currents enter the spiking layers as still inputs; its
    other outputs are repeated.

    The graph gets a second input, `static`: whether the first is a still image. Returns the calls of spiking layers
    with a still input.
    """
    graph = module.graph
    image = next(node for node in graph.nodes if node.op == "placeholder")
    still = _still_nodes(module, image, spiking)
    with graph.inserting_after(image):
        static = graph.placeholder("static")
    repeat = free_name({name for name, _ in module.named_modules()}, "repeat_in_time")
    module.add_submodule(repeat, RepeatInTime(time_steps))
    repeated: dict[fx.Node, fx.Node] = {}
    ends = []
    for node in list(graph.nodes):
        if node in still or node is static:
            continue
        if node in spiking and node.args[0] in still:
            node.kwargs = {"static": static}
            ends.append(node)
            continue
        for source in [source for source in node.all_input_nodes if source in still]:
            if source not in repeated:
                with graph.inserting_after(static if source is image else source):
                    repeated[source] = graph.call_module(repeat, (source, static))
            node.replace_input_with(source, repeated[source])
    return ends


def _still_nodes(module: fx.GraphModule, image: fx.Node, spiking: Set[fx.Node]) -> set[fx.Node]:
    """Tensors, and numbers derived from them, that are the same at every step of a still image: everything computed
    from the image, up to spiking layers, batch norms (their statistics depend on the number of copies) and dropout.
    """
    ends = (kinds.BatchNorm, *kinds.STOCHASTIC)
    still: set[fx.Node] = {image}
    timeless: set[fx.Node] = set()
    for node in module.graph.nodes:
        inputs = set(node.all_input_nodes)
        known = node.meta.get("shape", ()) is not None or node.meta.get("size", False)
        ends_here = node in spiking or not known or isinstance(kinds.called_module(module, node), ends)
        if node is image or node.op == "output" or ends_here:
            continue
        if inputs <= timeless:  # parameters, and values computed from them alone
            timeless.add(node)
        elif inputs <= still | timeless:
            still.add(node)
    sizes = [node for node in still if node.meta.get("size", False)]
    # The batch size of the still part is wrong for tensors with time.
    return {image} if any(user not in still for node in sizes for user in node.users) else still
