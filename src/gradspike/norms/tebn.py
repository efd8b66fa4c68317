"""TEBN: temporal effective batch normalization (Duan et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.norms.options import NormConfig
from gradspike.norms.steps import StepNorm


class Tebn(StepNorm):
    """x[t] = p[t] (gamma (y[t] - m) / sqrt(v + eps) + beta), m and v over batch, time and space.

    One learned factor p[t] per step, 1 at the start, for all channels. gamma starts at 1 for every V_th and in every
    branch of a sum.
    """

    Config: ClassVar[type[NormConfig]] = NormConfig

    def __init__(
        self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1, time_steps: int = 1
    ) -> None:
        super().__init__(config, channels, time_steps)
        self.time_scale = nn.Parameter(torch.ones(time_steps))

    @override
    def pooled(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        overall = mean.mean(0, keepdim=True)
        return overall, (variance + (mean - overall).square()).mean(0, keepdim=True)

    @override
    def counts(self, values: int) -> Tensor:
        return self.running_var.new_full((1,), values * self.time_steps)

    @override
    def affine(self) -> tuple[Tensor, Tensor]:
        factor = self.time_scale.unsqueeze(1)
        return factor * self.weight, factor * self.bias

    @override
    def mean_gain(self, dtype: torch.dtype) -> Tensor:
        return super().mean_gain(dtype) * self.time_scale.detach().to(dtype).mean()
