"""IM-Loss: a loss that keeps the current or the potential near the firing point (Guo et al., NeurIPS 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from gradspike.methods.base import LayerFacts, Method, Plan
from gradspike.methods.options import MIN_WIDTH, MethodConfig
from gradspike.surrogate import UNIT_DSPIKE, Surrogate


class ImLossConfig(MethodConfig):
    """`weight` is that of the loss, `loss_on` what it is computed from.

    `temperature` (c) is the factor of tanh's argument in the surrogate; with `temperature_end` it grows from
    `temperature` to that value over the training.
    """

    surrogate: Literal["dspike"] = "dspike"
    loss_on: Literal["current", "potential"] = "current"
    weight: float = Field(default=0.005, ge=0)
    temperature: float = Field(default=3.0, ge=MIN_WIDTH)
    temperature_end: float | None = Field(default=None, ge=MIN_WIDTH)
    sync_stats: Literal["auto"] | bool = "auto"


class ImLoss(Method):
    """theta[t] = V_th; the surrogate is a tanh on the support |v| <= 1/2, with temperature c.

        loss_on: current      weight * (mean of all x[t] - V_th / T)^2            the released code, where V_th = 1/2
        loss_on: potential    weight * mean over t of (mean of u[t] - V_th)^2     our reading of the paper

    With `temperature_end`, c = start + (end - start) (10^r - 1) / 9, r the share of the training that is over.
    """

    Config: ClassVar[type[ImLossConfig]] = ImLossConfig
    config: ImLossConfig
    uses_progress: ClassVar[bool] = True

    @property
    @override
    def shape(self) -> Surrogate:
        return UNIT_DSPIKE

    @property
    def temperature(self) -> Tensor:
        """c, a scalar."""
        start, end = self.config.temperature, self.config.temperature_end
        growth = (10**self.progress - 1) / 9
        return torch.full_like(growth, start) if end is None else start + (end - start) * growth

    @override
    def quantities(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature}

    @override
    def plan(self, facts: LayerFacts) -> Plan:
        widths = self.temperature.to(facts.dtype).repeat(facts.time_steps)
        return Plan(thresholds=facts.full(facts.v_threshold), widths=widths)

    @property
    @override
    def has_current_loss(self) -> bool:
        return self.config.weight > 0 and self.config.loss_on == "current"

    @override
    def current_loss(self, facts: LayerFacts, mean: Tensor) -> Tensor:
        return self.config.weight * (mean - facts.v_threshold / facts.time_steps).square()

    @property
    @override
    def has_membrane_loss(self) -> bool:
        return self.config.weight > 0 and self.config.loss_on == "potential"

    @override
    def membrane_loss(self, facts: LayerFacts, mean: Tensor, variance: Tensor) -> Tensor:
        return self.config.weight * (mean - facts.v_threshold).square().mean()
