"""Batch norm over the batches of all ranks, as one process would compute it. One collective operation each way.

torch's SyncBatchNorm computes the same, but only on CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradspike import ranks


def synced_batch_norm(y: Tensor, gain: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise y [N, C, *space] over all ranks, which have equal N.

    Returns the normalised values in dtype and memory format of y, and the mean and biased variance [C] of all ranks
    (without gradient).
    """
    normalised, mean, variance = _SyncedBatchNorm.apply(y, gain, bias, eps)
    return normalised, mean, variance


def norm_gradient(grad_y: Tensor, y: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    """grad_y - (slope * y + offset), in dtype and memory format of grad_y; slope and offset broadcast against y.

    Adds the gradient through the batch's statistics to one that treats them as constants.
    """
    correction = y.to(slope.dtype) * slope + offset
    return (grad_y.to(slope.dtype) - correction).to(grad_y.dtype)


def statistics_terms(
    grad_gain: Tensor, grad_bias: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Slope and offset [C] of `norm_gradient`, from the gradients of gain and bias over all `count` values.

    dL/dy = g r (dL/dx - mean(dL/dx) - (y - m) r mean(dL/dx (y - m) r))
    """
    scale = gain * inverse / count
    slope = scale * inverse * grad_gain
    return slope, scale * grad_bias - slope * mean


class _SyncedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, gain: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        dtype = gain.dtype
        over = [0, *range(2, y.ndim)]
        own_variance, own_mean = torch.var_mean(y.to(dtype), over, correction=0)
        mean, variance = ranks.pooled_channels(own_mean, own_variance)
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(y, gain, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        shape = (1, -1, *[1] * (y.ndim - 2))
        normalised = (y.to(dtype) - mean.view(shape)) * (gain * inverse).view(shape) + bias.view(shape)
        return normalised.to(y.dtype), mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        y, gain, mean, inverse = ctx.saved_tensors
        shape, over = (1, -1, *[1] * (y.ndim - 2)), [0, *range(2, y.ndim)]
        # A rank without a gradient also takes part, because the others wait for its sums.
        grad = y.new_zeros(()).expand_as(y) if grad is None else grad
        wide = grad.to(gain.dtype)
        grad_bias = wide.sum(over)
        grad_gain = (wide * (y.to(gain.dtype) - mean.view(shape))).sum(over) * inverse
        count = y.numel() // y.shape[1] * ranks.world_size()
        all_gain, all_bias = ranks.summed(grad_gain, grad_bias)
        slope, offset = statistics_terms(all_gain, all_bias, gain, mean, inverse, count)
        grad_y = norm_gradient(wide * (gain * inverse).view(shape), y, slope.view(shape), offset.view(shape))
        return grad_y.to(y.dtype), grad_gain, grad_bias, None
