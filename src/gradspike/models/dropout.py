"""Dropout with one mask for all time steps of a sample, as in the released codes of spiking networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.engine.streamed import current_pass


class StepDropout(nn.Module):
    """Set elements of [T*B, ...] to 0 with probability `rate`, the same at all steps; divide the others by 1 - rate.

    Only in training. Random numbers come from torch's CPU generator, whose state is in checkpoints.
    """

    def __init__(self, rate: float, time_steps: int) -> None:
        super().__init__()
        self.rate = rate
        self.time_steps = time_steps

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """Time first, as everywhere; same shape and dtype."""
        if not self.training or current_pass() is not None:
            return x
        steps = torch.unflatten(x, 0, (self.time_steps, -1))
        seed = int(torch.randint(2**63 - 1, ()))
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.empty(steps.shape[1:], device=x.device).uniform_(generator=generator)
        mask = (noise >= self.rate).to(x.dtype) / (1 - self.rate)
        return (steps * mask).flatten(0, 1)

    @override
    def extra_repr(self) -> str:
        return f"rate={self.rate:g}, time_steps={self.time_steps}"


def step_dropout(rate: float, time_steps: int) -> nn.Module:
    """A dropout for [T*B, ...], which is nothing for a rate of 0."""
    return StepDropout(rate, time_steps) if rate else nn.Identity()
