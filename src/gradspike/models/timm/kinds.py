"""Kinds of calls in a traced timm network: activations, gates, batch norms, dropout."""

from __future__ import annotations

import operator

import torch
from timm.layers.create_act import _ACT_LAYER_DEFAULT, _ACT_LAYER_ME
from timm.layers.drop import DropBlock2d, DropPath
from timm.layers.global_context import GlobalContext
from timm.layers.norm_act import BatchNormAct2d
from torch import fx, nn
from torch.nn import functional as F

BatchNorm = nn.modules.batchnorm._BatchNorm
OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
STOCHASTIC = (nn.modules.dropout._DropoutNd, DropPath, DropBlock2d)
CONVOLUTION = nn.modules.conv._ConvNd

# These map to a bounded range, so their output is a factor, not a feature.
_GATE_NAMES = ("sigmoid", "tanh", "hard_sigmoid", "hardsigmoid")
_TIMM = [*_ACT_LAYER_DEFAULT.items(), *_ACT_LAYER_ME.items()]
GATES: tuple[type[nn.Module], ...] = (
    *(nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softmax),
    *{kind for name, kind in _TIMM if name in _GATE_NAMES},
)
GATE_FUNCTIONS = {
    *(torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.hardsigmoid, torch.softmax, F.softmax),
    *("sigmoid", "sigmoid_", "tanh", "softmax"),
}
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus),
    *{kind for name, kind in _TIMM if name not in (*_GATE_NAMES, "identity")},
)
ACTIVATION_FUNCTIONS = {
    *(F.relu, F.relu_, torch.relu, torch.relu_, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish),
    *(F.hardswish, F.softplus, "relu", "relu_"),
}
PRODUCTS = {
    *(torch.matmul, torch.bmm, torch.baddbmm, torch.einsum, operator.matmul, F.scaled_dot_product_attention),
    *("matmul", "bmm"),
}


def called_module(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, or None."""
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def is_activation(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is an activation, or a norm that contains one."""
    layer = called_module(module, node)
    if layer is not None:
        return isinstance(inner_activation(layer) or layer, ACTIVATIONS)
    return node.op in ("call_function", "call_method") and node.target in ACTIVATION_FUNCTIONS


def inner_activation(layer: nn.Module) -> nn.Module | None:
    """The activation inside a layer of timm's norm-act kind."""
    inner = getattr(layer, "act", None) if isinstance(layer, (BatchNormAct2d, *OTHER_NORMS)) else None
    return inner if isinstance(inner, ACTIVATIONS) else None


def is_gate(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node turns features into factors."""
    layer = called_module(module, node)
    if layer is not None:
        return isinstance(layer, GATES)
    return node.op in ("call_function", "call_method") and node.target in GATE_FUNCTIONS


def batch_norm(module: fx.GraphModule, node: fx.Node) -> BatchNorm | None:
    """The batch norm that a node calls, or None."""
    layer = called_module(module, node)
    return layer if isinstance(layer, BatchNorm) else None


def owners(node: fx.Node) -> list[tuple[str, type[nn.Module]]]:
    """Path and class of the modules whose forward contains a node, outermost first."""
    return [(str(path), kind) for path, kind in node.meta.get("nn_module_stack", {}).values()]


def owner(node: fx.Node) -> str:
    """Path of the innermost owner; "" for the network's own forward."""
    return owners(node)[-1][0] if owners(node) else ""


def in_global_context(node: fx.Node) -> bool:
    """Whether a node is inside timm's GlobalContext: a gate that also adds features, and pools by a product."""
    return any(issubclass(kind, GlobalContext) for _, kind in owners(node))
