"""Modules for the nodes that NIRTorch, which wires a NIR graph in torch, has no module of its own for."""

from __future__ import annotations

from typing import Any

import nir
import torch
from torch import Tensor, nn

DT = 1e-4


class Integrator(nn.Module):
    """LI and I. NIRTorch carries the state from step to step."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.leak = DT / torch.from_numpy(node.tau) if isinstance(node, nir.LI) else torch.zeros(())
        self.gain = torch.from_numpy(node.r) * (self.leak if isinstance(node, nir.LI) else DT)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = torch.zeros_like(x) if state is None else state
        v = v - self.leak * v + self.gain * x
        return v, v


class Step(nn.Module):
    """Threshold."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.threshold = torch.from_numpy(node.threshold)

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)


class Factor(nn.Module):
    """Scale."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self.scale = torch.from_numpy(node.scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _weighted(layer: nn.Conv2d | nn.Linear, node: Any) -> nn.Module:
    layer.weight.data, bias = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    assert layer.bias is not None
    layer.bias.data = bias
    return layer


def _conv(node: Any) -> nn.Module:
    channels_out, channels_in, *kernel = node.weight.shape
    return _weighted(nn.Conv2d(channels_in, channels_out, kernel, tuple(node.stride), tuple(node.padding)), node)


NODES = {
    nir.LI: Integrator,
    nir.I: Integrator,
    nir.Threshold: Step,
    nir.Scale: Factor,
    nir.Conv2d: _conv,
    nir.Affine: lambda node: _weighted(nn.Linear(*node.weight.shape[::-1]), node),
    nir.Flatten: lambda node: nn.Flatten(1),  # NIR counts axes without the batch
}
