"""TAB: temporal accumulated batch normalization (Jiang et al., ICLR 2024)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from gradspike.norms.options import NormConfig
from gradspike.norms.steps import StepNorm


class Tab(StepNorm):
    """x[t] = p[t]^2 (gamma[t] (y[t] - m[t]) / sqrt(v[t] + eps) + beta[t]), m[t] and v[t] over batch, space, steps <= t.

    Each step has its own gamma, beta and running statistics. p starts at 1; its square cannot be negative. gamma starts
    at 1 for every V_th and in every branch of a sum.
    """

    Config: ClassVar[type[NormConfig]] = NormConfig

    def __init__(
        self, config: NormConfig, channels: int, v_threshold: float, branches: int = 1, time_steps: int = 1
    ) -> None:
        super().__init__(config, channels, time_steps, steps=(time_steps,))
        self.time_scale_root = nn.Parameter(torch.ones(time_steps))

    @override
    def pooled(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        # One more step at a time (Chan, Golub and LeVeque, 1979), because cumsum is not deterministic on a GPU.
        means, variances = [mean[0]], [variance[0]]
        for t in range(1, len(mean)):
            away = mean[t] - means[-1]
            means.append(means[-1] + away / (t + 1))
            variances.append((t * variances[-1] + variance[t]) / (t + 1) + away.square() * (t / (t + 1) ** 2))
        return torch.stack(means), torch.stack(variances)

    @override
    def counts(self, values: int) -> Tensor:
        steps = torch.arange(1, self.time_steps + 1, dtype=self.running_var.dtype, device=self.running_var.device)
        return values * steps

    @override
    def affine(self) -> tuple[Tensor, Tensor]:
        factor = self.time_scale_root.square().unsqueeze(1)
        return factor * self.weight, factor * self.bias

    @override
    def mean_gain(self, dtype: torch.dtype) -> Tensor:
        return self.affine()[0].detach().to(dtype).mean()
