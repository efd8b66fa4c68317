"""Folds a norm in evaluation into the weights of the convolution or linear layer before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradspike.models.vgg9 import VotingHead
from gradspike.norms.base import ChannelNorm

Weights = tuple[Tensor, Tensor]
"""Weight [C, ...] and bias [C] of a layer with C channels in its output."""


@torch.no_grad()
def weights_of(layer: nn.Conv2d | nn.Linear) -> Weights:
    """Weight and bias of a layer; a bias of zeros if it has none. Of a voting head, the means over its voters."""
    weight = layer.weight.detach()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    if not isinstance(layer, VotingHead):
        return weight, bias

    def mean(value: Tensor) -> Tensor:
        return torch.unflatten(value.double(), 0, (-1, layer.voters)).mean(1).to(value.dtype)

    return mean(weight), mean(bias)


@torch.no_grad()
def folded(weights: Weights, norm: ChannelNorm) -> Weights:
    """Weights that give the norm's output for the layer's input.

    With y = W x + b, the norm gives gain (y - mean) / sqrt(variance + eps) + bias. Computed in float64, because each
    rounding of a weight moves the potentials near a threshold.
    """
    weight, bias = weights
    wide = torch.float64
    slope = norm.gain.to(wide) * torch.rsqrt(norm.running_var.to(wide) + norm.eps)
    shifted = (bias.to(wide) - norm.running_mean.to(wide)) * slope + norm.bias.to(wide)
    scaled = weight.to(wide) * slope.view(-1, *[1] * (weight.ndim - 1))
    return scaled.to(weight.dtype), shifted.to(weight.dtype)


def can_fold(norm: ChannelNorm) -> bool:
    """Whether the norm is one line per channel in evaluation, the same at every step."""
    plain: Callable[..., Tensor] = ChannelNorm.forward
    return type(norm).forward is plain and not norm.per_step
