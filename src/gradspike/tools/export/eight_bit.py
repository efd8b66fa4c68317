"""Weights of 8 bits after training: per output channel, symmetric, so a zero stays zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

LARGEST = 127
"""The integers are -127 to 127."""


def use_eight_bits(model: nn.Module) -> int:
    """Give every convolution and linear layer the weights q scale, with int8 q [C, ...] and float scale [C, 1, ...].

    Biases, norms and neurons stay as they are. A norm folded into the weights only changes the scales. Returns the
    number of layers. The network cannot be trained any more.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.weight.requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", _Scaled(), unsafe=True)
    return len(layers)


class _Scaled(nn.Module):
    """Keeps a weight as integers and scales, and computes it from them."""

    @override
    def forward(self, q: Tensor, scale: Tensor) -> Tensor:
        """The weight."""
        return q * scale

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest integers, and the scales that map each channel's largest magnitude to 127."""
        largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
        scale = torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))
        return (weight / scale).round().to(torch.int8), scale
