"""Statistics over all processes that train together. Each function but `world_size` is one collective of
torch.distributed. All ranks pool the same rows, so their results are bit-identical.

The loss is the mean of the ranks' losses, and DistributedDataParallel averages their gradients. The pooling functions
therefore pass back the *sum* of the ranks' gradients: its average is the gradient of one process with the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(row: Tensor) -> Tensor:
    """The ranks' tensors of equal shape, stacked: [R, ...]. No gradient."""
    rows = [torch.empty_like(row) for _ in range(world_size())]
    dist.all_gather(rows, row.contiguous())
    return torch.stack(rows)


def summed(*values: Tensor) -> tuple[Tensor, ...]:
    """Sums over ranks of tensors of one dtype, in one collective. No gradient."""
    flat = gathered(torch.cat([value.reshape(-1) for value in values])).sum(0)
    parts = torch.split(flat, [value.numel() for value in values])
    return tuple(part.view_as(value) for part, value in zip(parts, values, strict=True))


def collected(value: Any) -> list[Any]:
    """What all ranks have, by rank: plain values and tensors of any shape."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def pooled_channels(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [C] over ranks with equally many values per channel. No gradient.

    The method of Chan, Golub and LeVeque (1979): a sum of squares loses a small spread beside a large mean.
    """
    means, variances = gathered(torch.stack([mean, variance])).unbind(1)
    return _pooled(means, variances)


def pooled_moments(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Like `pooled_channels`, with gradient."""
    means, variances = _Gathered.apply(torch.stack([mean, variance])).unbind(1)
    return _pooled(means, variances)


def _pooled(means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    mean = means.mean(0)
    return mean, variances.mean(0) + (means - mean).square().mean(0)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, row: Tensor) -> Tensor:
        return gathered(row)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Each rank's loss depends on every row.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]
