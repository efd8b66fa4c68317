"""A timm network as a graph of calls (torch.fx), simplified and with shapes, for its conversion."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Set
from typing import Any, TypeVar

import torch
from timm.layers._fx import get_notrace_functions, get_notrace_modules
from timm.layers.norm_act import BatchNormAct2d
from timm.models.nfnet import NormFreeBlock
from timm.models.vgg import ConvMlp
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from gradspike.errors import first_line
from gradspike.models.timm import kinds

NetworkT = TypeVar("NetworkT", bound=nn.Module)

BATCH = 3  # images used to find shapes; odd, so that shapes show where samples are mixed

# timm's own tracer does not enter these. Here sizes are known and in-place arithmetic is rewritten, so they are traced.
_TRACED_ALL_THE_SAME = (ConvMlp, NormFreeBlock)
_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    "add_": "add",
    "sub_": "sub",
    "mul_": "mul",
    "div_": "div",
}


class NotTraceable(Exception):
    """The network's forward is not a fixed graph of calls; the message says why."""


class DoesNotRun(Exception):
    """The network cannot process the data set's images, or returns no logits; the message says why."""


def check_runs(network: nn.Module, channels: int, image_size: int, classes: int) -> None:
    """Raise DoesNotRun unless the network maps each image of this size to one vector of `classes` logits."""
    try:
        with torch.no_grad():
            logits = _skeleton(network).eval()(_images(channels, image_size))
    except Exception as error:
        raise DoesNotRun(
            f"does not run on {channels} x {image_size} x {image_size} images ({first_line(error)})"
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [BATCH, classes]:
        raise DoesNotRun(f"returns {shape} for {BATCH} images, not a vector of {classes} logits for each")


def trace(network: nn.Module, channels: int, image_size: int) -> fx.GraphModule:
    """The graph of the network's forward on images of this size, with its modules shared.

    It has no identities and no in-place arithmetic, and dropout is a module. `node.meta["shape"]` is the shape of a
    tensor for `BATCH` images, None for anything else; `node.meta["size"]` marks values without tensors, such as the
    shape of a tensor. Raises NotTraceable.
    """
    images, skeleton = _images(channels, image_size), _skeleton(network)
    # A trace fixes the mode.
    training, evaluation = (_traced(skeleton.train(mode), network, images) for mode in (True, False))
    if training.code != evaluation.code:
        raise NotTraceable("its forward differs between training and evaluation")
    try:
        with torch.no_grad():
            _Shapes(_skeleton(evaluation), graph=evaluation.graph).run(images)
    except Exception as error:
        raise NotTraceable(f"its traced forward fails ({first_line(error)})") from error
    return evaluation.train(network.training)


def free_name(taken: Set[str], wanted: str) -> str:
    """`wanted`, with the first number from 1 on if that name is taken."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _images(channels: int, image_size: int) -> Tensor:
    return torch.empty(BATCH, channels, image_size, image_size, device="meta")


def _skeleton(network: NetworkT) -> NetworkT:
    """A copy whose tensors have shapes but no data. Running it takes milliseconds and changes no statistics."""
    return copy.deepcopy(network).to("meta")


def _traced(skeleton: nn.Module, network: nn.Module, images: Tensor) -> fx.GraphModule:
    try:
        with torch.no_grad():
            graph = _Tracer(images).trace(skeleton)
    except Exception as error:  # a network's code may raise anything for a symbol instead of a tensor
        raise NotTraceable(f"its forward cannot be traced ({first_line(error)})") from error
    module = fx.GraphModule(network, graph, type(network).__name__)
    _simplify(module)
    return module


class _Tracer(fx.Tracer):
    """Traces timm's code down to the modules that the conversion handles. Conditions on sizes are evaluated."""

    def __init__(self, images: Tensor | None = None) -> None:  # None when torch unpickles a graph
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]
        self._images = images
        self._values: dict[fx.Node, Any] = {}
        self._trying = False

    @override
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        handled = (*kinds.ACTIVATIONS, *kinds.GATES, *kinds.STOCHASTIC, *kinds.OTHER_NORMS, BatchNormAct2d)
        if isinstance(m, (*handled, *_TRACED_ALL_THE_SAME)):
            return not isinstance(m, _TRACED_ALL_THE_SAME)
        whole = get_notrace_modules()  # type: ignore[no-untyped-call]
        return type(m) in whole or super().is_leaf_module(m, module_qualified_name)

    @override
    def to_bool(self, obj: fx.Proxy) -> bool:
        self._trying = True
        try:
            return bool(self._value(obj.node))
        finally:
            self._trying = False

    @override
    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._trying else super().call_module(m, forward, args, kwargs)

    @override
    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._trying else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node) -> Any:
        if node not in self._values:
            args = fx.map_arg(node.args, self._value)
            kwargs = fx.map_arg(node.kwargs, self._value)
            run: dict[str, Callable[[], Any]] = {
                "placeholder": lambda: self._images,
                "get_attr": lambda: operator.attrgetter(str(node.target))(self.root),
                "call_module": lambda: self.root.get_submodule(str(node.target))(*args, **kwargs),
                "call_method": lambda: getattr(args[0], str(node.target))(*args[1:], **kwargs),
                "call_function": lambda: node.target(*args, **kwargs),  # type: ignore[operator]
            }
            self._values[node] = run[node.op]()
        return self._values[node]


class _Shapes(fx.Interpreter):
    @override
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(result.shape) if isinstance(result, Tensor) else None
        n.meta["size"] = not any(isinstance(part, Tensor) for part in tree_leaves(result))
        return result


def _simplify(module: fx.GraphModule) -> None:
    for node in list(module.graph.nodes):
        if isinstance(kinds.called_module(module, node), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target is F.dropout:
            _dropout_as_module(module, node)
        elif node.target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[node.target]
            _feed_later_users(node)
        elif _in_place_activation(module, node):
            _feed_later_users(node)
    module.recompile()


def _dropout_as_module(module: fx.GraphModule, node: fx.Node) -> None:
    """Replace F.dropout, in which a trace fixes the mode, by a module, which follows the network's mode."""
    p = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
    name = free_name({name for name, _ in module.named_modules()}, f"{kinds.owner(node)}.dropout".lstrip("."))
    module.add_submodule(name, nn.Dropout(float(p)))  # type: ignore[arg-type]
    node.op, node.target, node.args, node.kwargs = "call_module", name, (node.args[0],), {}


def _in_place_activation(module: fx.GraphModule, node: fx.Node) -> bool:
    layer = kinds.called_module(module, node)
    if layer is not None:
        return isinstance(layer, kinds.ACTIVATIONS) and bool(getattr(layer, "inplace", False))
    if node.target not in kinds.ACTIVATION_FUNCTIONS:
        return False
    return bool(node.kwargs.get("inplace")) or node.target in (F.relu_, torch.relu_, "relu_")


def _feed_later_users(node: fx.Node) -> None:
    """After an in-place change, make all later users read the changed value."""
    changed, later = node.args[0], False
    assert isinstance(changed, fx.Node)
    for other in list(node.graph.nodes):
        if later and changed in other.all_input_nodes:
            other.replace_input_with(changed, node)
        later = later or other is node
