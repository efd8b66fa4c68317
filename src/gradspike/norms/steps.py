"""What norms share in which the time steps differ.

With y[t] a layer's input, m[t] and v[t] the mean and biased variance that hold at step t, all per channel:

    x[t] = gain[t] (y[t] - m[t]) / sqrt(v[t] + eps) + bias[t]

A subclass says which steps m[t] and v[t] cover, and what gain[t] and bias[t] are. Of the large tensors only y is kept
for the backward pass.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

from gradspike import ranks
from gradspike.norms.base import ChannelNorm
from gradspike.norms.options import NormConfig


class StepNorm(ChannelNorm):
    """Base class. A subclass implements `pooled`, `counts` and `affine`."""

    per_step: ClassVar[bool] = True

    def __init__(self, config: NormConfig, channels: int, time_steps: int, *, steps: tuple[int, ...] = ()) -> None:
        super().__init__(config, channels, steps=steps)
        self.time_steps = time_steps

    def pooled(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """m and v, [T, C] or, if they hold for all steps, [1, C], from mean and biased variance of each step.

        Both [T, C], or [1, C] if the input is the same at every step. Differentiable.
        """
        raise NotImplementedError

    def counts(self, values: int) -> Tensor:
        """How many values each row of `pooled` covers, if each step has `values` per channel: [T] or [1]."""
        raise NotImplementedError

    def affine(self) -> tuple[Tensor, Tensor]:
        """gain and bias of every step, [T, C]."""
        raise NotImplementedError

    @override
    def forward(self, y: Tensor, repeats: int = 1, update: bool = True) -> Tensor:
        """Normalise y [T*B, C, *space], time first; same dtype and memory format.

        With `repeats` = T, y [B, C, *space] is the input of every step, and the result still has all T.
        """
        steps = torch.unflatten(y, 0, (self.time_steps // repeats, -1))
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = _Moments.apply(steps, self.weight.dtype)
            if self.synced:
                mean, variance = ranks.pooled_moments(mean, variance)
            mean, variance = self.pooled(mean, variance)
            if update:
                self._record_steps(mean, variance, steps[0].numel() // steps.shape[2])
        current: Tensor = _Affine.apply(steps, *self._lines(mean, variance))
        return current.flatten(0, 1)

    @override
    def at_step(self, y: Tensor, t: int) -> Tensor:
        mean, slope, bias = self._lines(self.running_mean, self.running_var)
        current: Tensor = _Affine.apply(
            y.unsqueeze(0), mean.expand_as(bias)[t : t + 1], slope[t : t + 1], bias[t : t + 1]
        )
        return current.squeeze(0)

    def _lines(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of `_Affine` besides y: mean [T, C] or [1, C], slope and bias [T, C]."""
        gain, bias = self.affine()
        return mean.view(-1, gain.shape[1]), gain * torch.rsqrt(variance + self.eps), bias

    @torch.no_grad()
    def _record_steps(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Update the running statistics; `values` per channel and step on this rank."""
        self.num_batches_tracked += 1
        total = self.counts(values * (ranks.world_size() if self.synced else 1))
        if self.running_var.ndim == 1:  # one row that holds for all steps
            mean, variance, total = mean[0], variance[0], total[0]
        else:
            total = total.unsqueeze(1)
        self._follow(mean, None)
        followed = self.running_var.lerp(variance * (total / (total - 1).clamp_min(1)), self.momentum)
        # A single value has no variance.
        self.running_var.copy_(torch.where(total > 1, followed, self.running_var))


def _over(steps: Tensor) -> list[int]:
    """All dimensions of [T, B, C, *space] but time and channels."""
    return [1, *range(3, steps.ndim)]


def _spread(value: Tensor, steps: Tensor) -> Tensor:
    """[T, C] or [1, C], shaped to broadcast against [T, B, C, *space]."""
    return value.view(len(value), 1, -1, *[1] * (steps.ndim - 3))


class _Moments(torch.autograd.Function):
    """Mean and biased variance [T, C] of each step, in `dtype`."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(steps.to(dtype), _over(steps), correction=0)
        ctx.save_for_backward(steps, mean)
        return mean, variance

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Tensor, None]:
        steps, mean = ctx.saved_tensors
        count = steps[0].numel() // steps.shape[2]
        deviations = steps.to(mean.dtype) - _spread(mean, steps)
        grad = deviations * _spread(grad_variance * (2 / count), steps) + _spread(grad_mean / count, steps)
        return grad.to(steps.dtype), None


class _Affine(torch.autograd.Function):
    """(y[t] - mean[t]) slope[t] + bias[t] for all T steps, in the dtype of y.

    y [T, B, C, *space] or, if it is the same at every step, [1, B, C, *space]; mean [T, C] or [1, C]; slope and bias
    [T, C].
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, mean: Tensor, slope: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(y, mean, slope)
        wide = y.to(slope.dtype)
        return ((wide - _spread(mean, y)) * _spread(slope, y) + _spread(bias, y)).to(y.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y, mean, slope = ctx.saved_tensors
        wide = grad.to(slope.dtype)
        grad_bias = wide.sum(_over(y))
        grad_slope = (wide * (y.to(slope.dtype) - _spread(mean, y))).sum(_over(y))
        grad_mean = -(slope * grad_bias).sum_to_size(mean.shape)
        grad_y = (wide * _spread(slope, y)).sum_to_size(y.shape)
        return grad_y.to(y.dtype), grad_mean, grad_slope, grad_bias
