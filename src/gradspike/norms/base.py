"""What a norm is: a batch norm with a constant scale besides its gain, or a subclass with a forward pass of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from gradspike import ranks
from gradspike.norms.options import NormConfig
from gradspike.norms.registry import NORMS
from gradspike.norms.synced import synced_batch_norm


class ChannelNorm(nn.Module):
    """Batch norm over all dimensions but the second; the normalised value is multiplied by `scale`, then by gamma.

    State keys are those of torch.nn.BatchNorm. The variance is biased in the forward pass and unbiased in the running
    variance. The ANN twin uses this class itself. Registered norms are subclasses that take (config, channels,
    v_threshold, branches); see `build_norm`. A subclass may replace `forward`; see `fusible`.

    Class attributes:
        Config: its options, a subclass of NormConfig.
        per_step: the time steps differ in parameters or statistics. The norm takes T as one more argument, and its
            `forward` returns all T steps; see `norms.steps.StepNorm`.
        on_potential: every spiking layer also has a batch norm on its membrane potential, between charge and fire; see
            `build_potential_norm`.
    """

    Config: ClassVar[type[NormConfig]] = NormConfig
    per_step: ClassVar[bool] = False
    on_potential: ClassVar[bool] = False

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        config: NormConfig,
        channels: int,
        *,
        scale: float = 1.0,
        initial_gain: float = 1.0,
        steps: tuple[int, ...] = (),
    ) -> None:
        """`steps`: (T,) for gains, biases and running statistics [T, C], a set for each step, instead of [C]."""
        super().__init__()
        shape = (*steps, channels)
        self.momentum = config.momentum
        self.eps = config.eps
        self.sync = config.sync is not False
        self.scale = scale
        self.initial_gain = initial_gain
        self.weight = nn.Parameter(torch.full(shape, initial_gain))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @property
    def gain(self) -> Tensor:
        """Factor of the normalised value, [C]: gamma times `scale`."""
        return self.weight if self.scale == 1 else self.weight * self.scale

    @property
    def fusible(self) -> bool:
        """Whether an engine may fuse the norm with the neuron, using `gain`, `bias`, the statistics and `record`.

        A norm with a `forward` of its own runs as plain torch before the neuron.
        """
        return type(self).forward is ChannelNorm.forward

    def mean_gain(self, dtype: torch.dtype) -> Tensor:
        """Mean gain relative to where it starts, a scalar without gradient: gamma_mean of the methods."""
        return self.weight.detach().to(dtype).mean() / self.initial_gain

    @property
    def synced(self) -> bool:
        """Whether a pass in the current mode uses statistics over the batches of all ranks."""
        return self.training and self.sync and ranks.world_size() > 1

    def forward(self, y: Tensor, repeats: int = 1, update: bool = True) -> Tensor:
        """Normalise y [N, C, *space]; same shape, dtype and memory format.

        Args:
            y: input.
            repeats: y stands for this many copies along N, which changes the unbiased running variance.
            update: whether a pass in training mode changes the running statistics.
        """
        weight = self.gain
        if not self.training:
            return F.batch_norm(y, self.running_mean, self.running_var, weight, self.bias, False, 0.0, self.eps)
        count = y.numel() // y.shape[1]
        if self.synced:
            normalised, mean, variance = synced_batch_norm(y, weight, self.bias, self.eps)
            if update:
                self.record(mean, variance, count * repeats * ranks.world_size())
            return normalised
        if count == 1:
            return self._single(y, weight, repeats, update)
        if not update:
            return F.batch_norm(y, None, None, weight, self.bias, True, 0.0, self.eps)
        self.num_batches_tracked += 1
        if repeats == 1:
            return F.batch_norm(
                y, self.running_mean, self.running_var, weight, self.bias, True, self.momentum, self.eps
            )
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        normalised = F.batch_norm(y, mean, variance, weight, self.bias, True, 1.0, self.eps)
        self._follow(mean, _unbiased(variance * ((count - 1) / count), count * repeats))
        return normalised

    def at_step(self, y: Tensor, t: int) -> Tensor:
        """Normalise y [B, C, *space], the input of step t alone, as evaluation does."""
        return self(y, update=False)  # type: ignore[no-any-return]

    def record(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics with a batch that was normalised elsewhere: mean and biased variance [C] of
        `count` values, 2 or more, copies included.
        """
        self.num_batches_tracked.add_(1)
        self._follow(mean.to(self.running_mean.dtype), _unbiased(variance, count).to(self.running_var.dtype))

    def _single(self, y: Tensor, weight: Tensor, repeats: int, update: bool) -> Tensor:
        # torch refuses one value per channel. The normalised value is always 0, and so is its gradient. Only repeated
        # values have a variance, which is 0.
        if update:
            self.num_batches_tracked += 1
            mean = y.detach().flatten().to(self.running_mean.dtype)
            self._follow(mean, torch.zeros_like(mean) if repeats > 1 else None)
        shape = (1, -1, *[1] * (y.ndim - 2))
        return ((y - y) * weight.view(shape) + self.bias.view(shape)).to(y.dtype)

    def _follow(self, mean: Tensor, variance: Tensor | None) -> None:
        self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
        if variance is not None:
            self.running_var.mul_(1 - self.momentum).add_(variance, alpha=self.momentum)

    @override
    def extra_repr(self) -> str:
        return f"{self.weight.shape[-1]}, scale={self.scale}, momentum={self.momentum}, eps={self.eps}"


def _unbiased(variance: Tensor, count: int) -> Tensor:
    return variance * (count / (count - 1))


def build_norm(
    config: NormConfig, channels: int, v_threshold: float, branches: int = 1, time_steps: int = 1
) -> ChannelNorm:
    """A new norm for `channels` channels, one of `branches` whose currents are summed before a neuron.

    Raises ConfigError if the name is unknown or not a ChannelNorm.
    """
    per_step = getattr(NORMS.implementation(config.name), "per_step", False)
    more = (time_steps,) if per_step else ()
    return NORMS.build(ChannelNorm, config, channels, v_threshold, branches, *more)


def build_potential_norm(config: NormConfig, channels: int) -> ChannelNorm | None:
    """The batch norm of a layer's membrane potential, whose gain starts at 1; None if the norm has none."""
    return ChannelNorm(config, channels) if NORMS.implementation(config.name).on_potential else None
